// Collects the photos of a claim and of its listing: chosen, dropped, pasted or taken with a phone.

import { element } from "./dom.js";
import { say } from "./language.js";

/** The files per role, and a redraw of their lists; `onChange` is called after every change. */
export function createIntake(form, onChange) {
  const chosen = { photos: [], listings: [] };

  const add = (role, files) => {
    const images = [...files].filter((file) => file.type.startsWith("image/") || /\.(hei[cf]|avif)$/i.test(file.name));
    // Other files are sent only when there is no image; the service says why it cannot read them.
    chosen[role].push(...(images.length > 0 ? images : files));
    draw();
  };

  const draw = () => {
    for (const zone of form.querySelectorAll(".zone")) {
      const list = chosen[zone.dataset.role];
      zone.querySelector(".chosen").replaceChildren(...list.map((file) => entry(file, () => remove(list, file))));
    }
    onChange();
  };

  const remove = (list, file) => {
    list.splice(list.indexOf(file), 1);
    draw();
  };

  for (const zone of form.querySelectorAll(".zone")) {
    const { role } = zone.dataset;
    for (const input of zone.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => {
        add(role, input.files);
        input.value = ""; // the same file may be chosen again
      });
    }
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      add(role, event.dataTransfer.files);
    });
  }
  // A photo dropped outside the zones must not replace the page.
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length > 0 && !form.hidden) add("photos", files);
  });

  return {
    files: chosen,
    draw,
    clear() {
      chosen.photos = [];
      chosen.listings = [];
      draw();
    },
  };
}

function entry(file, onRemove) {
  const picture = element("img", { src: URL.createObjectURL(file), alt: "" });
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  picture.addEventListener("error", () => picture.classList.add("blank"));
  return element(
    "li",
    {},
    picture,
    element("span", {}, file.name),
    element("button", { type: "button", class: "plain", "aria-label": say("remove", { name: file.name }), onclick: onRemove }, "×"),
  );
}
