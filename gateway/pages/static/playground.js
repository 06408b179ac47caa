// Asks one model or two, and shows the answers as they come, as text only.
"use strict";

const form = document.getElementById("try");
const problem = document.getElementById("problem");
const stop = document.getElementById("stop");
let asking = null;

function number(name) {
  const text = form.elements[name].value.trim();
  if (!text) return undefined;
  const value = Number(text);
  if (Number.isNaN(value)) throw new Error(`${name.replace("_", " ")}: ${text} is no number.`);
  return value;
}

function json(name) {
  const text = form.elements[name].value.trim();
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name.replace("_", " ")}: ${error.message}`);
  }
}

function body(model) {
  const system = form.elements.system.value.trim();
  const messages = system ? [{ role: "system", content: system }] : [];
  messages.push({ role: "user", content: form.elements.message.value });
  const stream = form.elements.stream.checked;
  return {
    model,
    messages,
    temperature: number("temperature"),
    max_tokens: number("max_tokens"),
    tools: json("tools"),
    response_format: json("response_format"),
    stream,
    stream_options: stream ? { include_usage: true } : undefined,
  };
}

function card(model) {
  const made = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  made.querySelector("header").textContent = model;
  document.getElementById("answers").append(made);
  return { said: made.querySelector("pre"), told: made.querySelector("small") };
}

function summary(began, first, usage) {
  const parts = [`${((performance.now() - began) / 1000).toFixed(2)} s`];
  if (first !== null) parts.push(`first after ${Math.round(first - began)} ms`);
  if (usage) parts.push(`${usage.prompt_tokens ?? "–"} in, ${usage.completion_tokens ?? "–"} out`);
  if (usage && usage.cost !== undefined) parts.push(`$${usage.cost}`);
  return parts.join(" · ");
}

function linked(requestId) {
  const link = document.createElement("a");
  link.href = `${form.dataset.requests}/${encodeURIComponent(requestId)}`;
  link.textContent = "This request";
  return link;
}

function spoken(message) {
  const calls = (message.tool_calls ?? []).map((call) => {
    const made = call.function ?? {};
    return `${made.name ?? ""}${made.arguments ?? ""}`;
  });
  return (message.content ?? "") + calls.join("");
}

async function ask(model) {
  const { said, told } = card(model);
  const began = performance.now();
  let first = null;
  let usage = null;
  let requestId = "";
  try {
    const answer = await fetch(form.dataset.call, {
      method: "POST",
      headers: { "content-type": "application/json", "x-csrf-token": form.dataset.csrf },
      body: JSON.stringify(body(model)),
      signal: asking.signal,
    });
    requestId = answer.headers.get("request-id") ?? "";
    if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
      const whole = await answer.json();
      said.textContent = whole.error ? whole.error.message : (whole.choices ?? []).map((one) => spoken(one.message)).join("\n");
      said.classList.toggle("bad", Boolean(whole.error));
      usage = whole.usage ?? null;
    } else {
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
          const event = JSON.parse(line.slice(6));
          if (event.error) {
            said.classList.add("bad");
            said.append(`\n${event.error.message}`);
          }
          for (const choice of event.choices ?? []) {
            const text = spoken(choice.delta ?? {});
            if (text && first === null) first = performance.now();
            said.append(text);
          }
          usage = event.usage ?? usage;
        }
      }
    }
  } catch (error) {
    said.classList.add("bad");
    said.append(error.name === "AbortError" ? "\n(stopped)" : `\n${error.message}`);
  }
  told.textContent = summary(began, first, usage);
  if (requestId) told.append(" · ", linked(requestId));
}

if (form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    const models = [form.elements.model.value.trim(), form.elements.other.value.trim()].filter(Boolean);
    try {
      models.forEach(body);
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      return;
    }
    document.getElementById("answers").replaceChildren();
    asking = new AbortController();
    stop.disabled = false;
    await Promise.all(models.map(ask));
    stop.disabled = true;
  });
  stop.addEventListener("click", () => asking?.abort());
}
