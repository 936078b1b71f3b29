"""A job posting in prose: its lines, sections, title, years and skills, each read by rules over word lists."""
