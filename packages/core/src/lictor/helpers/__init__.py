"""For those who write tools: what a check before the call cannot promise, done in the body.

`lictor.helpers.files` opens files beneath a folder without following links;
`lictor.helpers.http` (extra `lictor[http]`) fetches without being led elsewhere.
"""
