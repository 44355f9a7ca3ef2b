"""A model-API product on fastapi-keyauth. Start it with ``make demo``.

In the order in which to read it:

- ``settings``: the plans, and the settings of the plugin.
- ``auth``: the ``KeyAuth`` of the product, and whose keys a user may manage.
- ``api``: routes for programs: a model that costs tokens, notes, a WebSocket.
- ``teams``: the owners of keys, their members and their plans.
- ``accounts``, ``passwords``, ``database``: what any product has.
- ``parrot``: the model.
- ``app``, ``demo``, ``__main__``: the application, its demo data, and its start.
- ``export_usage``: a script that sends usage to a billing system.

``shapes`` has three smaller applications.
"""
