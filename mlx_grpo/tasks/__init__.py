"""The shortlist task: a job and a candidate in, an explained decision out."""
