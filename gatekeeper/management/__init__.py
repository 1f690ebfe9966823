"""The management API on a listener of its own: operations, roles, audit, and their document.

Each operation is declared once, as an :class:`~gatekeeper.management.operation.Operation`. Routing,
validation, authorisation, audit and the OpenAPI document are made from that.
"""
