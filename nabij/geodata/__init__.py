"""Files of places: GeoJSON, projected coordinates, time zones."""
