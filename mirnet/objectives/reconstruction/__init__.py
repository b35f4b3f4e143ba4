"""A term on the input itself (MobileIE's warm-up)."""
