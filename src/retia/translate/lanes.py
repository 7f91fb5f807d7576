"""How a request gets its lane: a member of the W3C ``baggage`` header, written where the lane is entered.

A route that puts requests on a lane says so in its own configuration of one Lua filter; the script keeps
all other members, joins several header lines into one (so that programs that pass on only the first lose
nothing), and at gateways takes off a lane that the client named by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.filters.http.lua.v3 import lua_pb2

from retia.model.snapshot import View
from retia.policy.indexes import uses
from retia.policy.lanes import lanes
from retia.policy.lanes.routes import BAGGAGE, MEMBER
from retia.policy.routing.forms import HttpRule
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place, RouteConfig

LUA = "retia.filters.http.lane"
"""A name of its own, so that raw patches may bring other scripts."""

_SCRIPT = """
local accepted = {ACCEPTED}
local strip = STRIP

local function name_of(member)
  return member:match("^%s*([^=;%s]+)%s*=")
end

local function lane_of(member)
  return member:match("^[^=]*=%s*([^;%s]*)")
end

function envoy_on_request(handle)
  local lane = handle:filterContext():get("lane")
  local headers = handle:headers()
  local text = headers:get("BAGGAGE")
  if lane == nil and (text == nil or not strip) then
    return
  end
  local kept = {}
  local changed = lane ~= nil
  for member in (text or ""):gmatch("[^,]+") do
    local named = name_of(member) == "MEMBER"
    if named and (lane ~= nil or (strip and not accepted[lane_of(member)])) then
      changed = true
    elseif member:match("%S") then
      kept[#kept + 1] = member:match("^%s*(.-)%s*$")
    end
  end
  if not changed then
    return
  end
  if lane ~= nil then
    kept[#kept + 1] = "MEMBER=" .. lane
  end
  headers:remove("BAGGAGE")
  if #kept > 0 then
    headers:add("BAGGAGE", table.concat(kept, ","))
  end
end
"""


def lane_filters(view: View, place: Place) -> Iterable[HttpFilter]:
    """At gateways on every request, in sidecars on those that enter a lane there."""
    if place is Place.GATEWAY and uses(view, "lanes"):
        accepted = tuple(lane.name for lane in view.query(lanes, "") if lane.accepts)
        yield HttpFilter(Order.LANE, LUA, pb.packed(_lua(accepted, strip=True)))
    elif place is Place.OUTBOUND and uses(view, "lane-entries"):
        yield HttpFilter(Order.LANE, LUA, pb.packed(_lua((), strip=False)), disabled=True)


def lane_route(_view: View, rule: HttpRule) -> Iterable[RouteConfig]:
    """The route's requests are put on its rule's lane."""
    if rule.lane:
        message = lua_pb2.LuaPerRoute()
        message.filter_context["lane"] = rule.lane
        yield RouteConfig(LUA, pb.packed(message))


def _lua(accepted: tuple[str, ...], *, strip: bool) -> lua_pb2.Lua:
    # Names of objects are DNS labels: nothing in them ends a Lua string.
    table = ", ".join(f'["{name}"] = true' for name in sorted(accepted))
    script = _SCRIPT.replace("ACCEPTED", table).replace("STRIP", "true" if strip else "false")
    message = lua_pb2.Lua()
    message.default_source_code.inline_string = script.replace("BAGGAGE", BAGGAGE).replace("MEMBER", MEMBER)
    message.stat_prefix = "lane"
    return message
