// A text token by token: what each was chosen from is shown where the pointer is, or the arrow keys lead.

const tip = document.getElementById("token");
const said = document.getElementById("said");
const told = new WeakMap(); // of an element: [{ token, logprob, others: [[token, logprob], …] }, …]

export class TokenText {
  constructor(label) {
    this.element = document.createElement("div");
    this.element.className = "said text";
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", label);
    this.held = []; // tokens that gave no text yet: parts of a character
    this.element.addEventListener("keydown", (event) => this.walk(event));
    this.element.addEventListener("blur", () => leave());
    this.element.addEventListener("pointerover", (event) => show(event.target));
    this.element.addEventListener("pointerleave", () => leave());
    this.element.addEventListener("click", (event) => show(event.target));
  }

  get length() {
    return this.element.children.length;
  }

  add(piece, tokens) {
    this.held.push(...tokens);
    if (!piece) return;
    const span = document.createElement("span");
    span.className = "t";
    span.textContent = piece;
    if (this.held.length) {
      const probability = Math.exp(Math.min(...this.held.map((one) => one.logprob)));
      const rare = [0.5, 0.2, 0.05, 0.01].filter((limit) => probability < limit).length;
      if (rare) span.classList.add(`rare-${rare}`);
      told.set(span, this.held);
    }
    this.held = [];
    this.element.append(span);
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
    const tokens = [...this.element.children];
    if (event.key === "Escape") leave();
    if (!step || !tokens.length) return;
    event.preventDefault();
    const here = tokens.findIndex((one) => one.classList.contains("here"));
    const next = here < 0 ? 0 : Math.max(0, Math.min(tokens.length - 1, here + step));
    show(tokens[next], true);
  }
}

function show(span, aloud = false) {
  const tokens = told.get(span);
  leave();
  if (!tokens || !span.closest(".coloured")) return;
  span.classList.add("here");
  tip.replaceChildren(...tokens.map(tableOf));
  tip.hidden = false;
  const place = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const below = place.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(below ? place.bottom + 6 : place.top - tip.offsetHeight - 6) + scrollY}px`;
  if (aloud) {
    span.scrollIntoView({ block: "nearest" });
    said.textContent = tokens.map(inWords).join("; ");
  }
}

function leave() {
  tip.hidden = true;
  for (const one of document.querySelectorAll(".t.here")) one.classList.remove("here");
}

function tableOf(token) {
  const table = document.createElement("table");
  const isOther = ([name]) => name !== token.token;
  for (const [name, logprob, came] of [[token.token, token.logprob, true], ...token.others.filter(isOther)]) {
    const row = table.insertRow();
    if (came) row.className = "came";
    row.insertCell().textContent = visible(name);
    row.insertCell().textContent = percent(logprob);
  }
  return table;
}

function inWords(token) {
  const others = token.others.filter(([name]) => name !== token.token).slice(0, 3);
  const rest = others.map(([name, logprob]) => `${visible(name)} ${percent(logprob)}`).join(", ");
  return `${visible(token.token)} ${percent(token.logprob)}${rest ? `; others: ${rest}` : ""}`;
}

function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

function percent(logprob) {
  const share = Math.exp(logprob) * 100;
  return share < 0.01 ? "<0.01 %" : `${share.toFixed(share < 1 ? 2 : 1)} %`;
}
