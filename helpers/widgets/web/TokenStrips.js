import { changed, colourBar, el, hideTip, idOf, ink, isDark, kept, number, ours, plainKey, ramp, reveal, seen, shade, showTip, showTipAt, titled } from "./common.js";

const PRINT_FROM = 0.05; // weights from here on are printed below their token,
const PRINT_MOST = 200; // in strips that have no more tokens than this

/** One strip a prompt. `callbacks.set` gets `chosen`. */
export function draw(root, data, callbacks) {
  titled(root, data.title);
  const box = kept(root, "div", "ahd-strips", { role: "listbox", tabindex: 0, "aria-label": data.title || "tokens" });
  const legend = kept(root, "div", "ahd-legend");
  box.style.maxHeight = `${data.max_height}px`;
  if (changed(box, { strips: data.strips, limit: data.limit, dark: isDark(root) })) {
    box.replaceChildren(...data.strips.map((one, i) => strip(root, data, one, i)));
  }
  mark(box, "data-chosen", data.chosen);
  const bar = colourBar(ramp(root, "size"), "0", number(data.limit, 2), data.weight_label);
  legend.replaceChildren(...(data.strips.length ? [bar] : [el("span", {}, "No prompt yet.")]));
  listen(box, data, callbacks);
}

function strip(root, data, one, i) {
  const colours = ramp(root, "size"), names = namesAt(one), print = one.tokens.length <= PRINT_MOST;
  const tokens = one.tokens.map((_, k) => token(root, data, one, [i, k], names[k], colours, print));
  return el("div", { class: "ahd-strip", "data-long": !print, role: "group", "aria-label": one.label },
    el("div", { class: "ahd-label" }, el("bdi", {}, one.label)), el("div", { class: "ahd-tokens" }, ...tokens));
}

function namesAt(one) {
  const names = {};
  for (const [name, k] of Object.entries(one.positions)) if (k !== null) names[k] = [...(names[k] ?? []), name];
  return names;
}

function token(root, data, one, at, names, colours, print) {
  const weight = one.weights[at[1]], colour = weight === null ? null : shade(colours, weight / data.limit);
  const value = print && weight >= PRINT_FROM ? weight.toFixed(2) : "";
  return el("span", {
    class: "ahd-token", role: "option", id: idOf(root, ...at), "data-at": at.join(","), "data-none": weight === null,
    "data-query": one.query === at[1], "aria-label": lines(data, at).join(", "),
    style: colour ? { background: colour, color: ink(colour) } : {},
  }, el("small", { class: "ahd-name" }, names?.join(" ") ?? ""), el("bdi", {}, seen(one.tokens[at[1]])), ...(print ? [el("small", {}, value)] : []));
}

function mark(box, name, at) {
  for (const old of box.querySelectorAll(`[${name}]`)) old.removeAttribute(name);
  const found = at ? box.querySelector(`[data-at="${at.join(",")}"]`) : null;
  found?.setAttribute(name, "");
  return found;
}

function lines(data, [i, k]) {
  const one = data.strips[i], names = namesAt(one)[k] ?? [];
  const values = [`${data.weight_label}: ${number(one.weights[k])}`];
  if (one.second) values.push(`${data.second_label || "second"}: ${number(one.second[k])}`);
  const place = `token ${k}${names.length ? `, ${names.join(", ")}` : ""}${one.query === k ? ", the query" : ""}`;
  return [seen(one.tokens[k]), ...values, place];
}

// ---- pointer and keys

function listen(box, data, callbacks) {
  const at = (event) => event.target.closest?.("[data-at]")?.dataset.at.split(",").map(Number);
  box.onpointermove = (event) => {
    const place = at(event);
    if (place) showTip(event.clientX, event.clientY, lines(data, place));
    else hideTip();
  };
  box.onpointerleave = hideTip;
  box.onblur = () => { hideTip(); mark(box, "data-cursor", null); };
  box.onclick = (event) => {
    const place = at(event);
    if (place) callbacks.set({ chosen: place });
  };
  box.onkeydown = (event) => {
    const key = plainKey(event);
    if (key === "Escape") hideTip();
    const here = cursor(box, data), to = here && moved(key, data, here);
    if (!here || (!to && key !== "Enter" && key !== " ")) return;
    ours(event);
    if (!to) return callbacks.set({ chosen: here });
    const found = mark(box, "data-cursor", box.querySelector("[data-cursor]") ? to : here);
    box.setAttribute("aria-activedescendant", found.id);
    reveal(box, found);
    showTipAt(found, lines(data, found.dataset.at.split(",").map(Number)));
  };
}

/** The token that the keys are at: where they went, or the chosen one, or the first. */
function cursor(box, data) {
  const found = box.querySelector("[data-cursor]")?.dataset.at.split(",").map(Number);
  return found ?? data.chosen ?? (data.strips[0]?.tokens.length ? [0, 0] : null);
}

function moved(key, data, [i, k]) {
  const last = (one) => data.strips[one].tokens.length - 1;
  const strip = Math.min(data.strips.length - 1, Math.max(0, i + ({ ArrowUp: -1, ArrowDown: 1 }[key] ?? 0)));
  const to = { ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: last(i), PageUp: k - 50, PageDown: k + 50, ArrowUp: k, ArrowDown: k }[key];
  return to === undefined ? null : [strip, Math.min(last(strip), Math.max(0, to))];
}
