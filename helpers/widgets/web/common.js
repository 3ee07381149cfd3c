// What the components share. A component draws its data into an element, and may be called again on the same element:
// boxes that were made with `kept` stay, and with them focus and scrolling.

/** A new element; children are elements or texts, never HTML. */
export function el(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

/** A new element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

export function dressed(node, attributes, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(node.style, value);
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** The box of a class in a parent, made when it is not there yet. */
export function kept(parent, tag, name, attributes = {}) {
  const found = parent.querySelector(`:scope > .${name}`) ?? parent.appendChild(el(tag, { class: name }));
  return dressed(found, attributes);
}

/** Whether something is other than when this was last asked of a box; values are compared as `===` does. */
export function changed(box, now) {
  const before = box.drawn;
  box.drawn = now;
  return !before || Object.keys(now).some((key) => before[key] !== now[key]);
}

/** The id of something in a component, which no other component of the page has. */
export function idOf(root, ...place) {
  root.dataset.ahdId ??= `ahd-${Math.random().toString(36).slice(2)}`;
  return [root.dataset.ahdId, ...place].join("-");
}

/** The title of a component; without one its place is empty. */
export function titled(root, title) {
  const box = kept(root, "div", "ahd-title");
  box.textContent = title;
  box.hidden = !title;
}

/** A number with some digits; a small one that would read as zero gets two of its own, unless its sign is what counts. */
export function number(value, digits = 3, signed = false) {
  if (value === null || value === undefined) return "n/a";
  const small = !signed && value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits;
  const text = small ? value.toPrecision(2) : value.toFixed(digits).replace(/^-(0(\.0+)?)$/, "$1");
  return (signed && value > 0 ? "+" : "") + text.replace("-", "−");
}

const SIGNS = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥" };

/** A token as one sees it: signs for blanks and newlines, code points for what can't be seen. */
export function seen(token) {
  if (token === "") return "∅";
  const code = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  const letters = [...token];
  const joins = (i) => letters[i] === "\u200d" && i > 0 && i < letters.length - 1;
  return letters.map((c, i) => SIGNS[c] ?? (/[\p{C}\p{Z}]/u.test(c) && !joins(i) ? code(c) : c)).join("");
}

// ---- colours

let brush = null;

/** Red, green and blue of any colour of CSS, as the browser paints it. */
function channels(colour) {
  brush ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  brush.fillStyle = colour;
  brush.fillRect(0, 0, 1, 1);
  return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

const inks = new Map();

function luminance(colour) {
  const [r, g, b] = channels(colour).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Black or white, whichever contrasts more: at least 4.5 to 1 on every colour. */
export function ink(colour) {
  if (!inks.has(colour)) inks.set(colour, luminance(colour) > 0.179 ? "#000000" : "#ffffff");
  return inks.get(colour);
}

/** Whether an element stands on a dark page. */
export function isDark(element) {
  return luminance(getComputedStyle(element).backgroundColor) < 0.179;
}

/** Colours of a scale on the page as it is, from the lowest value to the highest. */
export function ramp(element, scale) {
  const colours = COLOURS[isDark(element) ? "dark" : "light"];
  return scale === "q" ? [...colours.size].reverse() : colours[scale];
}

/** The colour of a share between 0 and 1; what lies outside has that of the nearer end. */
export function shade(colours, share) {
  return colours[Math.round(Math.min(1, Math.max(0, share)) * (colours.length - 1))];
}

/** A bar of colours with its ends, and what it shows. */
export function colourBar(colours, low, high, label) {
  const bar = el("span", { class: "ahd-bar", style: { background: `linear-gradient(to right, ${colours.join(",")})` } });
  return el("span", { class: "ahd-key" }, low, bar, high, el("span", {}, label));
}

/** Bytes from base64. */
export function bytesOf(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// ---- tooltip: one for the page, at its body, so that no box cuts it off

/** Show lines of text, the first one bold, beside a place of the window; it stays inside the window. */
export function showTip(x, y, lines) {
  const box = document.querySelector("body > .ahd-tip") ?? document.body.appendChild(el("div", { class: "ahd-tip", role: "tooltip" }));
  box.replaceChildren(...lines.map((line, i) => el(i ? "div" : "b", {}, el("bdi", {}, line))));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const right = document.documentElement.clientWidth - width - 6;
  const below = y + 16 + height < window.innerHeight - 4;
  box.style.left = `${Math.max(6, Math.min(x + 12, right))}px`;
  box.style.top = `${Math.max(4, below ? y + 16 : y - height - 10)}px`;
}

/** The same beside an element, for those who use keys. */
export function showTipAt(element, lines) {
  const { left, bottom } = element.getBoundingClientRect();
  showTip(left, bottom - 12, lines);
}

export function hideTip() {
  const box = document.querySelector("body > .ahd-tip");
  if (box) box.hidden = true;
}

// ---- keys

/** A key without those that belong to the browser, or an empty text. */
export function plainKey(event) {
  return event.altKey || event.metaKey ? "" : (event.ctrlKey ? "Control+" : "") + event.key;
}

/** The key was ours: neither the page nor JupyterLab gets it. */
export function ours(event) {
  event.preventDefault();
  event.stopPropagation();
}

/** Scroll a box, and nothing around it, until an element in it can be seen; `top` of the box is covered. */
export function reveal(box, element, top = 0) {
  if (!element) return;
  const outer = box.getBoundingClientRect(), inner = element.getBoundingClientRect();
  if (inner.top < outer.top + top) box.scrollTop -= outer.top + top - inner.top;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom;
}

// ---- drawing again

/** What JupyterLab, VS Code and others change when the theme changes. */
const THEME = ["class", "data-jp-theme-light", "data-jp-theme-name", "data-theme", "data-vscode-theme-kind"];

/** Call `paint` now, when asked to, and when width or theme change; returns how to ask and how to end that. */
export function live(root, paint) {
  root.classList.add("ahd");
  root.dataset.lmSuppressShortcuts = "true";
  let asked = 0, width = 0;
  const draw = () => {
    asked = 0;
    if (root.clientWidth) paint();
  };
  const again = () => { asked ||= requestAnimationFrame(draw); };
  const sizes = new ResizeObserver(() => {
    if (root.clientWidth !== width) again();
    width = root.clientWidth;
  });
  const themes = new MutationObserver(again);
  const media = matchMedia("(prefers-color-scheme: dark)");
  sizes.observe(root);
  for (const node of [document.body, document.documentElement]) themes.observe(node, { attributeFilter: THEME });
  media.addEventListener("change", again);
  draw();
  const end = () => {
    cancelAnimationFrame(asked);
    sizes.disconnect();
    themes.disconnect();
    media.removeEventListener("change", again);
    hideTip();
  };
  return { again, end };
}

/** The widget of a component: data from the model's traits, changes back into them. */
export function connect(draw) {
  return ({ model, el: root }) => {
    const names = model.get("_names");
    const set = (changes) => {
      for (const [name, value] of Object.entries(changes)) model.set(name, value);
      model.save_changes();
    };
    const data = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));
    const { again, end } = live(root, () => draw(root, data(), { set }));
    for (const name of names) model.on(`change:${name}`, again);
    return () => {
      for (const name of names) model.off(`change:${name}`, again);
      end();
    };
  };
}
