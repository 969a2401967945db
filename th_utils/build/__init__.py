"""Everything that turns notebooks into a book; no kernel and no chapter imports it."""
