"""Costs of routes: for each unit, the highest cost among the requirements of a route."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

from starlette.types import Scope

from fastapi_keyauth.domain.limit_sets import Cost, highest_cost
from fastapi_keyauth.http.routes import find_dependant, foresee_dependant, iterate_dependants

MAX_ROUTES = 10_000
"""Maximum number of routes whose costs are cached."""


class RouteCosts:
    """Finds the cost of a request before its first requirement is checked, so that it is charged in one step.

    Attributes:
        has_any: Whether any requirement has a cost of its own; otherwise there is nothing to find.
    """

    def __init__(self) -> None:
        self.has_any = False
        self._known: dict[int, tuple[Any, Cost | None]] = {}

    def find(self, scope: Scope, cost: Cost) -> Cost:
        """Return the cost of a request, at least that of the calling requirement.

        Args:
            scope: The request's ASGI scope, after routing.
            cost: The cost of the calling requirement, which may not be a dependency of the route.
        """
        return self._add(find_dependant(scope), cost)

    def foresee(self, scope: Scope, cost: Cost) -> Cost:
        """Return the cost of a request that was not routed yet, at least ``cost``.

        Args:
            scope: The request's ASGI scope.
            cost: The cost of a request to a route without requirements, or to one that is not found.
        """
        return self._add(foresee_dependant(scope.get("app"), scope), cost)

    def _add(self, dependant: Any, cost: Cost) -> Cost:
        """Return the higher one of a cost and the cost of a route."""
        if dependant is None:
            return cost
        known, of_route = self._known.get(id(dependant), (None, None))
        if known is not dependant:
            if len(self._known) >= MAX_ROUTES:
                self._known.clear()
            costs = list(self._costs_in(dependant))
            of_route = reduce(highest_cost, costs) if costs else None
            self._known[id(dependant)] = (dependant, of_route)
        return cost if of_route is None else highest_cost(cost, of_route)

    def _costs_in(self, dependant: Any) -> Iterator[Cost]:
        """Yield the costs of the requirements of this KeyAuth in a tree of FastAPI's dependencies."""
        for inner in iterate_dependants(dependant):
            handler = getattr(inner.call, "handler", None)
            if getattr(handler, "costs", None) is self and inner.call.takes_key:
                yield inner.call.cost
