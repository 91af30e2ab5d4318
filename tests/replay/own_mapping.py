"""How a small stream of a test's own is read: columns t, lat, lon, what."""

MAPPING = """
timezone = "Europe/Brussels"
text = "{what}"
[columns]
time = "t"
lat = "lat"
lon = "lon"
category = "what"
[[rules]]
when = { what = ["brand*", "vuur"] }
category = "fire"
"""
