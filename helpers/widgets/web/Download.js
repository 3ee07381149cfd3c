import { el, kept } from "./common.js";

/** A button with which the browser saves bytes as a file. */
export function draw(root, data) {
  const button = kept(root, "button", "ahd-button", { type: "button" });
  const said = kept(root, "span", "ahd-beside", { role: "status" });
  button.textContent = data.label;
  button.onclick = () => {
    const bytes = Uint8Array.from(atob(data.data), (c) => c.charCodeAt(0));
    const address = URL.createObjectURL(new Blob([bytes], { type: data.mime }));
    el("a", { href: address, download: data.filename }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    said.textContent = `Saved as ${data.filename} by the browser.`;
  };
}
