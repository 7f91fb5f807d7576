"""Categories *controller*, *agent*, *identity*, *proxies*, *configuration*: what runs, as it says itself."""

from __future__ import annotations

from collections.abc import Iterator

from retia import __version__
from retia.cli.checks import Result, Scene, Verdict
from retia.cli.output import span, until
from retia.cli.proxies import describe_nack, sync_word

MAX_SKEW_S = 300.0
"""Certificates are valid from five minutes before they are made, so that much is survived."""
_ROOT_SOON_S = 30 * 86_400
_LEAF_SOON_S = 3600


def controller(scene: Scene) -> Iterator[Result]:
    name = "controller"
    status = scene.status
    if status is None:
        yield _absent(name, scene.controller_error, "start a mesh with 'retia up'")
        return
    yield Result(name, "answers", Verdict.OK, f"version {status.version}, revision {status.revision}")
    yield _neighbour(name, "version", status.version)
    verdict = Verdict.OK if status.ready else Verdict.FAILED
    yield Result(name, "ready", verdict, "" if status.ready else "it has not built its configuration yet")
    if status.registry_frozen:
        ends = f" (ends {until(status.registry_until, scene.now)})" if status.registry_until else ""
        reason = f"no endpoint is withdrawn: {status.registry_reason}{ends}"
        remedy = "see 'retia hosts'; it ends by itself when the agents are back"
        yield Result(name, "registry", Verdict.WARNING, reason, remedy)
    else:
        yield Result(
            name, "registry", Verdict.OK, f"{status.services} services, {status.workloads} workloads"
        )
    for host in scene.hosts:
        if host.lease != "valid" or not host.connected:
            reason = f"lease {host.lease}, last seen {until(host.last_seen, scene.now)}"
            yield Result(
                name, f"host {host.id}", Verdict.WARNING, reason, "is its agent running and its network up?"
            )


def agent(scene: Scene) -> Iterator[Result]:
    name = "agent"
    info = scene.agent
    if info is None:
        yield _absent(name, scene.agent_error, "start one with 'retia up' or 'retia agent'")
        return
    yield Result(name, "answers", Verdict.OK, f"version {info.software}, host {info.host}")
    yield _neighbour(name, "version", info.software)
    if info.connected:
        yield Result(name, "session with the controller", Verdict.OK, info.controller)
    else:
        reason = f"away for {span(info.disconnected_s)}: {info.last_error or 'no reason known'}"
        remedy = "proxies go on with what they hold; start the controller, or check the network to it"
        yield Result(name, "session with the controller", Verdict.FAILED, reason, remedy)
    if info.state_error:
        remedy = "make room or mend the file; until then a restart would forget what is new"
        yield Result(name, "state on disk", Verdict.FAILED, info.state_error, remedy)
    else:
        yield Result(name, "state on disk", Verdict.OK)


def identity(scene: Scene) -> Iterator[Result]:
    name = "identity"
    if scene.status is None and scene.agent is None:
        yield Result(name, "certificates and clocks", Verdict.SKIPPED, "nothing is running")
        return
    for certificate in scene.status.authority if scene.status else ():
        yield _expiry(name, certificate.subject, certificate.expiry, scene.now, _ROOT_SOON_S, _ROTATE)
    if scene.agent is not None:
        expiry = scene.agent.host_certificate_expiry
        if expiry:
            remedy = "it is renewed by itself while the controller is reachable"
            if expiry < scene.now:
                remedy = "start the agent once more with --join TOKEN, from 'retia token create'"
            yield _expiry(name, "this host's certificate", expiry, scene.now, _LEAF_SOON_S, remedy)
        yield _skew(name, "this host's clock", scene.agent.clock_skew_s)
    for host in scene.hosts:
        if scene.agent is None or host.id != scene.agent.host:
            yield _skew(name, f"the clock of host {host.id}", host.clock_skew_s)


def proxies(scene: Scene) -> Iterator[Result]:
    name = "proxies"
    if scene.status is None:
        yield Result(name, "proxies", Verdict.SKIPPED, "no controller to ask")
        return
    if not scene.proxies:
        yield Result(name, "proxies", Verdict.OK, "there are none")
    for proxy in scene.proxies:
        sync = sync_word(proxy)
        remedy = f"see 'retia logs proxy/{proxy.id}'"
        for nack in proxy.nacks:
            cure = "correct that object and apply it again" if nack.object else remedy
            yield Result(name, proxy.id, Verdict.FAILED, f"refused {describe_nack(nack)}", cure)
        if proxy.nacks:
            continue
        if proxy.state == "down":
            yield Result(name, proxy.id, Verdict.FAILED, f"down, {proxy.restarts} restarts", remedy)
        elif proxy.state != "ready" or sync != "synced":
            yield Result(name, proxy.id, Verdict.WARNING, f"{proxy.state}, {sync}", remedy)
        elif 0 < proxy.certificate_expiry < scene.now:
            reason = f"its certificate lapsed {until(proxy.certificate_expiry, scene.now)}"
            yield Result(name, proxy.id, Verdict.FAILED, reason, "is the agent connected to the controller?")
        else:
            reason = "synced"
            if proxy.certificate_expiry:  # a host gateway holds none
                reason += f", certificate lapses {until(proxy.certificate_expiry, scene.now)}"
            yield Result(name, proxy.id, Verdict.OK, reason)


def configuration(scene: Scene) -> Iterator[Result]:
    name = "configuration"
    if scene.status is None:
        yield Result(name, "objects", Verdict.SKIPPED, "no controller to ask")
        return
    verdicts = {"error": Verdict.FAILED, "warning": Verdict.WARNING, "info": Verdict.OK}
    for finding in scene.status.findings:
        at = f"{finding.field}: " if finding.field else ""
        reason = f"{at}{finding.message} [{finding.code}]"
        yield Result(name, finding.object or "mesh", verdicts[finding.level], reason, finding.remedy)
    if not scene.status.findings:
        yield Result(name, "objects", Verdict.OK, f"{scene.status.objects}, nothing to report")


_ROTATE = "replace the authority: docs/howto/own-authority.md"


def _absent(category: str, error: str, remedy: str) -> Result:
    if error:
        return Result(category, "answers", Verdict.FAILED, error, "restart it, or see 'retia logs'")
    return Result(category, "running", Verdict.WARNING, "not running for this RETIA_HOME", remedy)


def _neighbour(category: str, name: str, version: str) -> Result:
    """Neighbouring minor versions work together."""
    try:
        ours, theirs = (tuple(map(int, v.rpartition("/")[2].split(".")[:2])) for v in (__version__, version))
    except ValueError:
        return Result(category, name, Verdict.WARNING, f"{version!r} cannot be compared with {__version__}")
    if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1:
        return Result(category, name, Verdict.OK, f"{version}, this command {__version__}")
    reason = f"it is {version}, this command {__version__}; only neighbouring minor versions work together"
    return Result(
        category, name, Verdict.FAILED, reason, "upgrade the older one, one minor version at a time"
    )


def _expiry(category: str, name: str, expiry: float, now: float, soon_s: float, remedy: str) -> Result:
    if expiry < now:
        return Result(category, name, Verdict.FAILED, f"lapsed {until(expiry, now)}", remedy)
    verdict = Verdict.WARNING if expiry - now < soon_s else Verdict.OK
    shown = remedy if verdict is Verdict.WARNING else ""
    return Result(category, name, verdict, f"lapses {until(expiry, now)}", shown)


def _skew(category: str, name: str, skew_s: float) -> Result:
    reason = f"{abs(skew_s):.1f} s from the controller's"
    if abs(skew_s) > MAX_SKEW_S:
        remedy = "set the clock (NTP): certificates are refused beyond five minutes"
        return Result(category, name, Verdict.FAILED, reason, remedy)
    if abs(skew_s) > MAX_SKEW_S / 5:
        return Result(
            category, name, Verdict.WARNING, reason, "set the clock (NTP) before it is five minutes"
        )
    return Result(category, name, Verdict.OK, reason)
