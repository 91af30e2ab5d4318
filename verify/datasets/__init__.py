"""How files of incidents are read: their text and rows, times, places, and what they may hold."""
