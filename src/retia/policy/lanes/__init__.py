"""TrafficLane: requests that stay on chosen versions of every service on their way.

Four words: a *lane* is a name that requests carry in their ``baggage``; the *entry* is where they are given
it; a *lane version* of a service is its instances that the lane's requests go to; the *baseline* is
everything else.
"""

from retia.policy.lanes.choose import LANE_LABEL, MAX_LANES, Lane, lane_subset, lanes, selects

__all__ = ["LANE_LABEL", "MAX_LANES", "Lane", "lane_subset", "lanes", "selects"]
