"""What both packages stand on: the command line's manners, files that are whole or absent, HTML pages, plots."""
