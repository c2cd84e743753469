// Small things that the browser remembers for a person: the language, the reviewer's name. Nothing of any claim.

/** What was remembered under `name`, "" when nothing, or when the browser forbids it. */
export function recall(name) {
  try {
    return localStorage.getItem(`realdamage.${name}`) ?? "";
  } catch {
    return "";
  }
}

/** Remembers `value` under `name`, if the browser lets us. */
export function remember(name, value) {
  try {
    localStorage.setItem(`realdamage.${name}`, value);
  } catch {
    // The page works without it.
  }
}
