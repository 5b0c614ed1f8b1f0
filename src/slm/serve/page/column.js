// One model's side of the page: its conversation, or its continuation of a text.

import { stream } from "./api.js";
import { TokenText } from "./tokens.js";

const ALTERNATIVES = 5;

export class Column {
  constructor(model) {
    this.model = model;
    this.element = document.createElement("section");
    this.element.className = "column";
    this.element.setAttribute("aria-label", model.id);
    const head = document.createElement("header");
    const name = document.createElement("h2");
    name.textContent = model.id;
    this.figures = document.createElement("p");
    this.figures.className = "soft";
    head.append(name, this.figures);
    this.body = document.createElement("div");
    this.element.append(head, this.body);
    this.clear();
  }

  clear() {
    this.messages = [];
    this.body.replaceChildren();
    this.figures.textContent = "";
  }

  // Writes until the text ends, `signal` stops it, or it fails, which is shown; what became of it, in words.
  async write(mode, prompt, settings, signal) {
    const { system, ...asked } = settings;
    const chats = mode === "chat";
    if (!chats) this.clear();
    this.element.classList.toggle("completion", !chats);
    this.addSaid(prompt);
    const text = new TokenText(`${this.model.id}, what it wrote; arrow keys go from token to token`);
    text.element.classList.add("writing");
    this.body.append(text.element);
    const common = { model: this.model.id, ...asked, stream_options: { include_usage: true } };
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...this.messages, { role: "user", content: prompt }];
    const [path, body] = chats
      ? ["/v1/chat/completions", { ...common, messages, logprobs: true, top_logprobs: ALTERNATIVES }]
      : ["/v1/completions", { ...common, prompt, logprobs: ALTERNATIVES }];
    const pace = new Pace();
    let whole = "", ended = "";
    try {
      for await (const event of stream(path, body, signal)) {
        const choice = event.choices[0];
        if (!choice) continue;
        const piece = (chats ? choice.delta.content : choice.text) ?? "";
        const tokens = tokensOf(choice.logprobs);
        if (piece || tokens.length) pace.count(tokens.length);
        whole += piece;
        text.add(piece, tokens);
        ended = choice.finish_reason ?? ended;
        this.figures.textContent = pace.words();
      }
      ended = ended === "length" ? "cut at its length" : "done";
    } catch (error) {
      ended = error.name === "AbortError" ? "stopped" : "failed";
      if (ended === "failed") this.addFault(error.message);
    }
    text.element.classList.remove("writing");
    if (chats && whole) this.messages.push({ role: "user", content: prompt }, { role: "assistant", content: whole });
    this.figures.textContent = [pace.words(), ended].filter(Boolean).join(" · ");
    return `${this.model.id}: ${this.figures.textContent}`;
  }

  addSaid(prompt) {
    const asked = document.createElement("div");
    asked.className = "said asked";
    asked.textContent = prompt;
    this.body.append(asked);
  }

  addFault(message) {
    const fault = document.createElement("p");
    fault.className = "fault";
    fault.setAttribute("role", "alert");
    fault.textContent = message;
    this.body.append(fault);
  }
}

class Pace {
  constructor() {
    this.start = performance.now();
    this.tokens = 0;
  }

  count(tokens) {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += tokens;
  }

  words() {
    if (!this.tokens) return "";
    const seconds = (this.last - this.first) / 1000;
    const rate = this.tokens > 1 && seconds > 0 ? `${((this.tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    const first = `first after ${((this.first - this.start) / 1000).toFixed(2)} s`;
    return [`${this.tokens} ${this.tokens === 1 ? "token" : "tokens"}`, rate, first].filter(Boolean).join(" · ");
  }
}

function tokensOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map((one) => ({
      token: one.token,
      logprob: one.logprob,
      others: one.top_logprobs.map((other) => [other.token, other.logprob]),
    }));
  }
  return logprobs.tokens.map((token, i) => ({
    token,
    logprob: logprobs.token_logprobs[i],
    others: Object.entries(logprobs.top_logprobs?.[i] ?? {}).sort((one, other) => other[1] - one[1]),
  }));
}
