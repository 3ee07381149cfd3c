import { el, kept } from "./common.js";

const SECONDS = 3; // that "Copied." is shown

/** A button that copies; where it may not, the text is shown, ready to be copied. */
export function draw(root, data) {
  const button = kept(root, "button", "ahd-button", { type: "button" });
  const said = kept(root, "span", "ahd-beside", { role: "status" });
  button.textContent = data.label;
  button.onclick = async () => {
    root.querySelector(".ahd-by-hand")?.remove();
    const done = await copied(data.text);
    said.textContent = done ? "Copied." : "The browser refuses: copy it from here.";
    if (done) setTimeout(() => { said.textContent = ""; }, 1000 * SECONDS);
    else byHand(root, data.text);
  };
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedTheOldWay(text);
  }
}

/** For pages that may not use the clipboard, such as those without https. */
function copiedTheOldWay(text) {
  const area = document.body.appendChild(el("textarea", { style: { position: "fixed", opacity: "0" } }));
  const focused = document.activeElement;
  area.value = text;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

function byHand(root, text) {
  const area = kept(root, "textarea", "ahd-by-hand", { readonly: true, rows: 6, "aria-label": "text to copy" });
  area.value = text;
  area.onkeydown = (event) => event.stopPropagation();
  area.select();
}
