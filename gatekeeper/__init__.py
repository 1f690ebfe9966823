"""Gatekeeper: an adaptive rate-limiting and identity-verification proxy for model endpoints.

The rooms, from the top; imports point downward only (``pyproject.toml`` holds the contract):

``cli``            the commands
``app``            composition root: builds things, owns the real clock, ids and chance
``demo``           a model endpoint to try the gate on
``sources``        reads what a gate is made of: secrets, rules, network data, routes
``limits``         builds the limits: in memory, or shared in a store and guarded
``ops``            the listener of probes and metrics
``gate``           the path of one request
``delivery``       forwards an admitted call and settles it
``listener``       what reaches us by HTTP: parse it strictly, answer it usefully
``facts``          observes: client address, network, credentials, accounts
``verification``   step-up: signed links (vendors come here)
``storage``        remembers: limiter state, records (SQL), decision log
``upstream``       forwards, streams, cancels, and picks which upstream
``dialects``       one file per API family: cost, usage and refusal bodies
``telemetry``      logs and metrics, each name declared once
``settings``       process settings: file < environment < flags
``policy``         PURE: words, model, rules, conditions, score, limits arithmetic, decide
"""

__version__ = "0.1.0"
