"""Where is everyone? Fixes in, H3-cell indexes in Redis GEO, nearby drivers out."""
