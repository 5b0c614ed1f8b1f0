// What the page does: asks the chosen models at once, and stops them.

import { models, Refused, setKey } from "./api.js";
import { Column } from "./column.js";
import { chosen, showDefaults, wrong } from "./settings.js";

const find = (id) => document.getElementById(id);
const prompt = find("prompt"), send = find("send"), stop = find("stop"), said = find("said");
let columns = [], writing = null;

const mode = () => document.querySelector('[name="mode"]:checked').value;

async function begin() {
  let known;
  try {
    known = await models();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) askForKey();
    else said.textContent = find("prompt-hint").textContent = `The server does not answer: ${error.message}`;
    return;
  }
  find("key-form").hidden = true;
  columns = known.map((model) => new Column(model));
  find("columns").replaceChildren(...columns.map((column) => column.element));
  find("models").hidden = columns.length < 2;
  find("models").append(...columns.map(choiceOf));
  showDefaults(known[0].slm.sampling);
  if (!known.some((model) => model.slm.chat)) {
    document.querySelector('[value="completion"]').checked = true;
    document.querySelector('[value="chat"]').disabled = true;
  }
  send.disabled = false;
  changeMode();
  prompt.focus();
}

function askForKey() {
  if (!find("key-form").hidden) find("key-wrong").textContent = "That was not it.";
  find("key-form").hidden = false;
  find("key").focus();
}

function choiceOf(column) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => { column.element.hidden = !box.checked; });
  label.append(box, ` ${column.model.id}`);
  return label;
}

function changeMode() {
  const chats = mode() === "chat";
  find("prompt-label").textContent = chats ? "Message" : "Text to go on with";
  find("prompt-hint").textContent = `${chats ? "Enter" : "Ctrl-Enter"} sends, Escape stops`;
  find("system-field").hidden = !chats;
  for (const column of columns) column.clear();
}

async function write() {
  const text = prompt.value;
  const field = wrong();
  if (field) {
    find("settings").open = true;
    field.reportValidity();
  }
  if (writing || field || (mode() === "chat" && !text.trim())) return;
  const asked = columns.filter((column) => !column.element.hidden && (mode() !== "chat" || column.model.slm.chat));
  if (!asked.length) return;
  writing = new AbortController();
  send.disabled = true;
  stop.disabled = false;
  said.textContent = "writing";
  if (mode() === "chat") prompt.value = "";
  const done = await Promise.all(asked.map((column) => column.write(mode(), text, chosen(), writing.signal)));
  writing = null;
  send.disabled = false;
  stop.disabled = true;
  said.textContent = done.join("; ");
}

find("ask").addEventListener("submit", (event) => { event.preventDefault(); write(); });
find("key-form").addEventListener("submit", (event) => { event.preventDefault(); setKey(find("key").value); begin(); });
find("modes").addEventListener("change", changeMode);
find("anew").addEventListener("click", () => { writing?.abort(); for (const column of columns) column.clear(); prompt.focus(); });
find("coloured").addEventListener("change", (event) => find("columns").classList.toggle("coloured", event.target.checked));
find("columns").classList.add("coloured");
stop.addEventListener("click", () => { writing?.abort(); prompt.focus(); });
prompt.addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && !event.isComposing && (event.ctrlKey || event.metaKey || (mode() === "chat" && !event.shiftKey));
  if (sends) { event.preventDefault(); write(); }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") writing?.abort(); });
begin();
