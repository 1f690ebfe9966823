"""Gatekeeper: an adaptive rate-limiting and identity-verification proxy for model endpoints.

The rooms, from the top; imports point downward only (``pyproject.toml`` holds the contract):

``cli``            the commands
``app``            composition root: builds things, owns the real clock, ids and chance
``demo``           a model endpoint to try the gate on
``sandbox_vendor`` a vendor of identity checks to try step-up on
``management``     the management API: operations, roles, audit, OpenAPI
``alerts``         watches conditions of this process and posts their changes
``gauges``         what a gate tells of its state
``live``           follows what changes under way: rule files, network data, the records
``serving``        the listeners of callers
``sources``        reads what a gate is made of: secrets, rules, network data, routes
``ops``            the listener of probes and metrics
``limits``         builds the limits: in this process, or guarded in a shared store
``feeds``          fetches lists and databases of networks for the update commands
``campaigns``      the watcher, a job: what accounts share, groups, score (an extra)
``gate``           the path of one request
``deciding``       joins rules and limits to one decision, writes it down, words the refusal
``conversations``  WebSockets: passed on both ways, metered by turn or message, settled
``judging``        judges what was read and holds its worst case
``snapshot``       what one request is judged by
``door``           what differs from listener to listener
``delivery``       forwards an admitted call and settles it
``batch_files``    reads the file of a batch, so that what it costs is known beforehand
``draining``       reads the answers of callers that left on to their report
``terms``          what a call is held for, and what is changed in it and its answer
``listener``       what reaches us by HTTP: parse it strictly, answer it usefully
``facts``          observes: client address, network, credentials, accounts
``verification``   step-up: links, pages, cases under way, and the vendors of identity checks
``tracing``        spans of sampled calls (an extra)
``storage``        remembers: limiter state, records (SQL), decision log
``upstream``       forwards, streams, cancels, and picks which upstream
``websocket``      frames, and one end of a connection that speaks them
``dialects``       one file per API family: cost, usage and refusal bodies
``telemetry``      logs and metrics, each name declared once
``settings``       process settings: file < environment < flags
``policy``         PURE: words, model, rules, conditions, score, limits arithmetic, decide
"""

__version__ = "0.1.0"
