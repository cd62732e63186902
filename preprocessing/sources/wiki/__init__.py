"""MediaWiki's markup as plain text: what a page says, without parser functions, templates' pages or a network."""
