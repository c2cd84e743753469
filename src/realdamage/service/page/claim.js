// Turns the service's answer into what the page shows: one entry a photo, with the file that was sent.

/**
 * The claim as the page needs it. files, listings: what was sent; the results have the same order.
 * isSmall: they are the small pictures of the evidence, which do not lie on the photo pixel by pixel.
 * `thresholds` is { real, synthetic } on the score, or null when the model has none.
 */
export function readClaim(answer, files, listings, isSmall = false) {
  const policy = answer.model?.thresholds ?? null;
  const shown = new Map();
  (answer.listings ?? []).forEach(({ name }, index) => {
    const file = listings[index];
    if (file) shown.set(name, { name: ownName(name, file), url: URL.createObjectURL(file), isSmall });
  });
  return {
    id: answer.claim_id ?? "",
    recommendation: answer.recommendation ?? null,
    reasons: answer.reasons ?? [],
    buyerTexts: answer.message_to_buyer ?? null,
    listingErrors: (answer.listings ?? []).filter(({ error }) => error),
    evidenceUrl: answer.evidence_url ?? "",
    model: answer.model ?? {},
    thresholds: Number.isFinite(policy?.t_synthetic) ? { real: policy.t_real, synthetic: policy.t_synthetic } : null,
    photos: (answer.photos ?? []).map((photo, index) => readPhoto(photo, files[index], shown)),
    listings: shown,
  };
}

function readPhoto(photo, file, listings) {
  const verdict = photo.verdict ?? null;
  const error = photo.error ?? "";
  return {
    name: ownName(photo.name, file),
    url: file ? URL.createObjectURL(file) : "",
    sha256: photo.sha256 || verdict?.photo_sha256 || "",
    outcome: error ? "error" : (verdict?.outcome ?? "none"),
    error,
    error_phrases: photo.error_phrases ?? [],
    verdict,
    provenance: photo.provenance ?? null,
    comparisons: (photo.comparisons ?? []).map((found) => ({
      name: found.listing,
      url: "",
      ...found,
      ...listings.get(found.listing),
    })),
    duplicates: photo.duplicates ?? [],
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
