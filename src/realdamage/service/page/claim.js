// Reads the service's answer into what the page shows: one entry a photo, beside the files it was asked about.

/**
 * The claim as the page needs it. files, listings: what was sent, in the order it was sent; results come back in it.
 * `thresholds` is { real, synthetic } on the score, or null when the model has none.
 */
export function readClaim(answer, files, listings) {
  const policy = answer.model?.thresholds ?? null;
  const urls = new Map();
  listings.forEach((file) => urls.has(file.name) || urls.set(file.name, URL.createObjectURL(file)));
  return {
    id: answer.claim_id ?? "",
    recommendation: answer.recommendation ?? null,
    reasons: answer.reasons ?? [],
    buyerTexts: answer.message_to_buyer ?? null,
    listingErrors: (answer.listings ?? []).filter(({ error }) => error),
    evidenceUrl: answer.evidence_url ?? "",
    model: answer.model ?? {},
    thresholds: Number.isFinite(policy?.t_synthetic) ? { real: policy.t_real, synthetic: policy.t_synthetic } : null,
    photos: (answer.photos ?? []).map((photo, index) => readPhoto(photo, files[index], urls)),
    listingUrls: urls,
  };
}

function readPhoto(photo, file, urls) {
  const verdict = photo.verdict ?? null;
  const error = photo.error ?? "";
  return {
    name: photo.name || file?.name || "",
    url: file ? URL.createObjectURL(file) : "",
    sha256: photo.sha256 || verdict?.photo_sha256 || "",
    outcome: error ? "error" : (verdict?.outcome ?? "none"),
    error,
    verdict,
    provenance: photo.provenance ?? null,
    comparisons: (photo.comparisons ?? []).map((found) => ({ ...found, name: found.listing, url: urls.get(found.listing) ?? "" })),
    duplicates: photo.duplicates ?? [],
    decision: null,
    earlier: [],
  };
}


/** Gives the memory of the photos back to the browser. */
export function forgetClaim(claim) {
  for (const photo of claim.photos) URL.revokeObjectURL(photo.url);
  for (const url of claim.listingUrls.values()) URL.revokeObjectURL(url);
}
