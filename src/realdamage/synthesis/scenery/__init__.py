"""What the studio photographs: solids, materials and printed artwork, put together to products, lit and seen."""
