"""Pool sets, part files, headers; both sides use them."""
