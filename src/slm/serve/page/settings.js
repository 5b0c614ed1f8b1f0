// The sampling settings: what is filled in is asked for, what is left empty is the server's.

const form = document.getElementById("settings");
const NUMBERS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens", "seed"];

export function chosen() {
  const settings = {};
  for (const name of NUMBERS) {
    const field = form.querySelector(`[name="${name}"]`);
    if (field.value !== "" && field.checkValidity()) settings[name] = Number(field.value);
  }
  const stop = form.querySelector('[name="stop"]').value;
  if (stop) settings.stop = [stop.replaceAll("\\n", "\n")];
  const system = form.querySelector('[name="system"]').value;
  if (system) settings.system = system;
  return settings;
}

// What the server would take is shown where nothing is filled in.
export function showDefaults(sampling) {
  const known = { ...sampling, max_tokens: sampling.max_new_tokens };
  if (sampling.greedy) known.temperature = 0;
  for (const name of NUMBERS) {
    if (known[name] !== undefined) form.querySelector(`[name="${name}"]`).placeholder = String(known[name]);
  }
}

// The first field with a value that is none; null if all are right.
export function wrong() {
  return NUMBERS.map((name) => form.querySelector(`[name="${name}"]`)).find((field) => !field.checkValidity()) ?? null;
}
