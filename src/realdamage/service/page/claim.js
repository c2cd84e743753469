// Turns the service's answer into what the page shows: one entry a photo, with the file that was sent.

/**
 * The claim as the page needs it. files, listings: what was sent; the results have the same order.
 * `thresholds` is { real, synthetic } on the score, or null when the model has none.
 */
export function readClaim(answer, files, listings) {
  const policy = answer.model.thresholds;
  const shown = new Map();
  answer.listings.forEach(({ name }, index) => {
    const file = listings[index];
    if (file) shown.set(name, { name: ownName(name, file), url: URL.createObjectURL(file) });
  });
  return {
    id: answer.claim_id,
    recommendation: answer.recommendation,
    reasons: answer.reasons,
    buyerTexts: answer.message_to_buyer,
    listingErrors: answer.listings.filter(({ error }) => error),
    thresholds: policy && { real: policy.t_real, synthetic: policy.t_synthetic },
    photos: answer.photos.map((photo, index) => readPhoto(photo, files[index], shown)),
    listings: shown,
  };
}

function readPhoto(photo, file, listings) {
  return {
    ...photo,
    name: ownName(photo.name, file),
    url: file ? URL.createObjectURL(file) : "",
    outcome: photo.error ? "error" : photo.verdict.outcome,
    comparisons: photo.comparisons.map((found) => ({ name: found.listing, url: "", ...found, ...listings.get(found.listing) })),
    decision: null,
    earlier: [],
  };
}

// Browsers send a quote in a file's name as %22; show the real name.
function ownName(name, file) {
  return file && name === file.name.replaceAll('"', "%22") ? file.name : name;
}

/** Gives the memory of the photos back to the browser. */
export function forgetClaim(claim) {
  for (const photo of claim.photos) URL.revokeObjectURL(photo.url);
  for (const { url } of claim.listings.values()) URL.revokeObjectURL(url);
}
