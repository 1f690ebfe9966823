"""Reports on campaigns for people elsewhere: as a page, and as STIX. Nothing here does I/O."""
