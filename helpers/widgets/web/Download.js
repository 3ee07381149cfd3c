import { bytesOf, el, kept } from "./common.js";

/** A button with which the browser saves bytes as a file. */
export function draw(root, data) {
  const button = kept(root, "button", "ahd-button", { type: "button" });
  const said = kept(root, "span", "ahd-beside", { role: "status" });
  button.textContent = data.label;
  button.onclick = () => {
    const address = URL.createObjectURL(new Blob([bytesOf(data.data)], { type: data.mime }));
    el("a", { href: address, download: data.filename }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    said.textContent = `Handed to the browser as ${data.filename}.`;
  };
}
