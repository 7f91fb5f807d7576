"""The tracked cache: resources are recomputed only when something that they read has changed.

A builder is a pure function of a view. The view given to it here notes every read: a fact, an index entry, an
attribute of the proxy, or the result of a memoised query. The cache keeps, for each resource, a compressed
trie of those reads: walking it costs one dictionary lookup a read, and ends at the result that was built from
equal reads, whichever proxy asked. Nobody lists what a result depends on, so nothing can be forgotten: a
hand-written cache key is where wrong configuration comes from.

* *Facts* are compared by stamp (an integer), so content is never hashed on a walk. A stale stamp never comes
  back: its branch is replaced, not kept.
* *Queries* return values that are interned: if a recomputed value equals the old one, its readers' walks
  still end at their old results (early cut-off).
* :meth:`Engine.update` names the resources that *might* have changed (their reads meet the changed facts);
  asking for them again recomputes only those whose reads really differ.

At start the cache is empty and fills as proxies ask. A builder that raises costs only its own resource, which
is then answered as absent with a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from retia.config.codes import Code, finding
from retia.model.finding import Finding
from retia.model.mesh import Proxy
from retia.model.resource import Built, Name, Resource, TypeUrl
from retia.model.snapshot import FactKey, Snapshot, View
from retia.xds.stream import LISTED
from retia.xds.wire import encode

T = TypeVar("T")
Builder = Callable[[View, Name], Built]
Lister = Callable[[View, TypeUrl], tuple[str, ...]]
MAX_FORK = 4096
"""Results kept side by side at one fork: one for each value of a proxy attribute or query. Arbitrary; at the
limit the fork starts afresh, which costs time and never correctness."""


class ImpureBuildError(RuntimeError):
    """A builder read different things although all that it had read before was equal: it isn't pure."""


class Node:
    """All results of one function for one key: the root of a trie of reads."""

    __slots__ = ("checked", "function", "interned", "key", "name", "readers", "root", "shared")

    def __init__(self, function: Callable[[View, Any], Any], key: Hashable, name: Name | None) -> None:
        self.function = function
        self.key = key
        self.name = name
        self.root: Segment | Leaf | None = None
        self.readers: set[Node] = set()
        self.interned: dict[Any, int] = {}
        self.checked = -1
        self.shared: Leaf | None = None


Read = FactKey | str | Node
"""A fact by its key, a proxy's attribute by its name, or a query by its node."""


class Leaf:
    """A result. ``token`` stands for its value in the readers' tries."""

    __slots__ = ("own", "token", "value")

    def __init__(self, value: Any, token: int, own: bool) -> None:
        self.value = value
        self.token = token
        self.own = own
        """Whether an attribute of the proxy was read on the way, directly or by a query."""


class Segment:
    """A run of reads with one token each, then what follows; a fork is a segment of no tokens."""

    __slots__ = ("children", "reads", "tail", "tokens")

    def __init__(self, reads: tuple[Read, ...], tokens: tuple[Any, ...], tail: Segment | Leaf) -> None:
        self.reads = reads
        self.tokens = tokens
        self.tail: Segment | Leaf | None = tail
        self.children: dict[Any, Segment | Leaf] | None = None

    @classmethod
    def fork(cls, read: Read, children: dict[Any, Segment | Leaf]) -> Segment:
        segment = cls.__new__(cls)
        segment.reads = (read,)
        segment.tokens = ()
        segment.tail = None
        segment.children = children
        return segment


class _Raised:
    """In place of a query's result: the error that it raised. Equal to nothing but itself."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(slots=True)
class Counters:
    """What the cache has done since it was made."""

    resources_built: int = 0
    queries_run: int = 0
    hits: int = 0
    failures: int = 0


class _Recorder:
    """The view of one running function: answers from the engine and keeps the list of reads."""

    __slots__ = ("context", "engine", "own", "reads", "seen", "tokens")

    def __init__(self, engine: Engine, context: _Context) -> None:
        self.engine = engine
        self.context = context
        self.reads: list[Read] = []
        self.tokens: list[Any] = []
        self.seen: set[Read] = set()
        self.own = False

    def _note(self, read: Read, token: Any) -> None:
        if read not in self.seen:
            self.seen.add(read)
            self.reads.append(read)
            self.tokens.append(token)

    def fact(self, *key: str) -> Any:
        stamp, value = self.engine.facts.get(key, (0, None))
        self._note(self.engine.intern(key), stamp)
        return value

    def index(self, name: str, key: str) -> tuple[Any, ...]:
        return self.fact("index", name, key) or ()

    def proxy(self, attribute: str) -> Any:
        value = getattr(self.context.proxy, attribute)
        self.own = True
        self._note(attribute, value)
        return value

    def query(self, function: Callable[[View, Any], T], key: Hashable) -> T:
        node = self.engine.query_node(function, key)
        leaf = self.engine.look_up(node, self.context)
        self.own = self.own or leaf.own
        self._note(node, leaf.token)
        if type(leaf.value) is _Raised:
            raise leaf.value.error
        return cast(T, leaf.value)


class _Context:
    """One question for one proxy; remembers what was already checked while answering it."""

    __slots__ = ("memo", "proxy", "running")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.memo: dict[Node, Leaf] = {}
        self.running: set[Node] = set()


class Engine:
    """Builds resources over one snapshot at a time and remembers them by what they read.

    Not thread-safe: one event loop owns it.
    """

    def __init__(self, snapshot: Snapshot, build: Builder, listed: Lister) -> None:
        self._build = build
        self._list = listed
        self._snapshot = snapshot
        self.facts = snapshot.facts
        self.counters = Counters()
        self._resources: dict[Name, Node] = {}
        self._lists: dict[TypeUrl, Node] = {}
        self._queries: dict[tuple[Any, Hashable], Node] = {}
        self._fact_readers: dict[FactKey, set[Node]] = {}
        self._keys: dict[FactKey, FactKey] = {}
        self._next_token = 1

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def size(self) -> int:
        """The number of resource names known to the cache."""
        return len(self._resources)

    def update(self, snapshot: Snapshot, changed: Iterable[FactKey]) -> frozenset[Name]:
        """Take the next snapshot; the names whose resources may differ now.

        A changed :meth:`listed` is reported as the name ``*`` of its type.
        """
        self._snapshot = snapshot
        self.facts = snapshot.facts
        affected: set[Name] = set()
        reached: set[Node] = set()
        queue = [node for key in changed for node in self._fact_readers.get(key, ())]
        while queue:
            node = queue.pop()
            if node in reached:
                continue
            reached.add(node)
            node.checked = -1
            if node.name is not None:
                affected.add(node.name)
            queue.extend(node.readers)
        return frozenset(affected)

    def resource(self, proxy: Proxy, name: Name) -> Resource:
        """The resource as this proxy gets it; an absent one has ``exists == False``."""
        node = self._resources.get(name)
        if node is None:
            node = self._resources[name] = Node(self._build_resource, name, name)
        return cast(Resource, self.look_up(node, _Context(proxy)).value)

    def listed(self, proxy: Proxy, type_url: TypeUrl) -> tuple[str, ...]:
        """The names of that type that a proxy gets without asking for them by name."""
        node = self._lists.get(type_url)
        if node is None:
            node = self._lists[type_url] = Node(self._list, type_url, Name(type_url, LISTED))
        return cast(tuple[str, ...], self.look_up(node, _Context(proxy)).value)

    def trim(self, keep: Container[Name]) -> int:
        """Forget the resources that aren't in ``keep``; how many were forgotten.

        Changes to a forgotten resource aren't reported by :meth:`update` until it is asked for again.
        """
        gone = [name for name in self._resources if name not in keep]
        dropped = {self._resources.pop(name) for name in gone}
        self._drop(dropped)
        return len(gone)

    # -- what the recorder needs ---------------------------------------------------------------------------

    def intern(self, key: FactKey) -> FactKey:
        return self._keys.setdefault(key, key)

    def query_node(self, function: Callable[[View, Any], Any], key: Hashable) -> Node:
        node = self._queries.get((function, key))
        if node is None:
            node = self._queries[(function, key)] = Node(function, key, None)
        return node

    def look_up(self, node: Node, context: _Context) -> Leaf:
        """The result of a node for a proxy: remembered, or computed now."""
        if node.checked == self._snapshot.revision and node.shared is not None:
            return node.shared
        leaf = context.memo.get(node)
        if leaf is None:
            leaf = self._walk(node, context)
            if leaf is None:
                leaf = self._compute(node, context)
            elif node.name is not None:
                self.counters.hits += 1
            context.memo[node] = leaf
            if not leaf.own:
                node.shared, node.checked = leaf, self._snapshot.revision
            else:
                node.shared = None
        return leaf

    # -- the trie ------------------------------------------------------------------------------------------

    def _token(self, read: Read, context: _Context) -> Any:
        if type(read) is tuple:
            entry = self.facts.get(read)
            return 0 if entry is None else entry[0]
        if type(read) is str:
            return getattr(context.proxy, read)
        return self.look_up(cast(Node, read), context).token

    def _walk(self, node: Node, context: _Context) -> Leaf | None:
        at: Segment | Leaf | None = node.root
        while type(at) is Segment:
            if at.children is not None:
                at = at.children.get(self._token(at.reads[0], context))
                continue
            for read, token in zip(at.reads, at.tokens, strict=True):
                if self._token(read, context) != token:
                    return None
            at = at.tail
        return cast("Leaf | None", at)

    def _compute(self, node: Node, context: _Context) -> Leaf:
        recorder = _Recorder(self, context)
        value = self._run(node, recorder)
        if node.name is None:
            self.counters.queries_run += 1
        leaf = Leaf(value, self._token_of(node, value), recorder.own)
        self._register(node, recorder.reads)
        node.root = self._insert(node.root, tuple(recorder.reads), tuple(recorder.tokens), leaf)
        return leaf

    def _run(self, node: Node, recorder: _Recorder) -> Any:
        """The function's result; what a query raised is remembered as its result, with what it read."""
        running = recorder.context.running
        if node in running:
            raise RuntimeError(
                f"the query {getattr(node.function, '__name__', '?')}({node.key!r}) needs its own result"
            )
        running.add(node)
        try:
            return node.function(recorder, node.key)
        except ImpureBuildError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again in whoever asks
            return _Raised(error)
        finally:
            running.discard(node)

    def _token_of(self, node: Node, value: Any) -> int:
        """Equal results of one query have one token; resources have no readers and need none."""
        if node.name is not None:
            return 0
        token = node.interned.get(value)
        if token is None:
            if len(node.interned) >= MAX_FORK:
                node.interned.clear()
            token = node.interned[value] = self._next_token
            self._next_token += 1
        return token

    def _register(self, node: Node, reads: Iterable[Read]) -> None:
        for read in reads:
            if type(read) is tuple:
                self._fact_readers.setdefault(read, set()).add(node)
            elif type(read) is not str:
                cast(Node, read).readers.add(node)

    def _insert(
        self, at: Segment | Leaf | None, reads: tuple[Read, ...], tokens: tuple[Any, ...], leaf: Leaf
    ) -> Segment | Leaf:
        if not reads:
            return leaf
        if at is None:
            return Segment(reads, tokens, leaf)
        if type(at) is Leaf:
            raise ImpureBuildError(f"read {reads[0]!r} after all that it read before was equal")
        segment = cast(Segment, at)
        if segment.children is not None:
            return self._insert_fork(segment, reads, tokens, leaf)
        return self._insert_run(segment, reads, tokens, leaf)

    def _insert_fork(
        self, fork: Segment, reads: tuple[Read, ...], tokens: tuple[Any, ...], leaf: Leaf
    ) -> Segment:
        children = cast("dict[Any, Segment | Leaf]", fork.children)
        _same_read(fork.reads[0], reads[0])
        if len(children) >= MAX_FORK and tokens[0] not in children:
            children.clear()
        children[tokens[0]] = self._insert(children.get(tokens[0]), reads[1:], tokens[1:], leaf)
        return fork

    def _insert_run(
        self, run: Segment, reads: tuple[Read, ...], tokens: tuple[Any, ...], leaf: Leaf
    ) -> Segment | Leaf:
        for i, (read, token) in enumerate(zip(run.reads, run.tokens, strict=True)):
            if i >= len(reads):
                raise ImpureBuildError(f"did not read {read!r} although all before was equal")
            _same_read(read, reads[i])
            if token != tokens[i]:
                return self._split(run, i, reads, tokens, leaf)
        n = len(run.reads)
        run.tail = self._insert(run.tail, reads[n:], tokens[n:], leaf)
        return run

    def _split(
        self, run: Segment, i: int, reads: tuple[Read, ...], tokens: tuple[Any, ...], leaf: Leaf
    ) -> Segment | Leaf:
        """``run`` and the new path part at read ``i``.

        Where the read has one value at a time (a fact, or a query that reads nothing of the proxy), the old
        value is gone for good and so is what hung on it; elsewhere both stay, side by side.
        """
        read = run.reads[i]
        if type(read) is tuple or (type(read) is Node and read.shared is not None):
            return Segment((*run.reads[:i], *reads[i:]), (*run.tokens[:i], *tokens[i:]), leaf)
        tail = cast("Segment | Leaf", run.tail)
        old = Segment(run.reads[i + 1 :], run.tokens[i + 1 :], tail) if i + 1 < len(run.reads) else tail
        new = Segment(reads[i + 1 :], tokens[i + 1 :], leaf) if i + 1 < len(reads) else leaf
        fork = Segment.fork(read, {run.tokens[i]: old, tokens[i]: new})
        return Segment(run.reads[:i], run.tokens[:i], fork) if i else fork

    def _drop(self, nodes: set[Node]) -> None:
        """Remove nodes, and the queries that nobody reads any more."""
        while nodes:
            below: set[Node] = set()
            for key, readers in list(self._fact_readers.items()):
                readers -= nodes
                if not readers:
                    del self._fact_readers[key]
                    self._keys.pop(key, None)
            for query, node in list(self._queries.items()):
                if node.readers & nodes:
                    node.readers -= nodes
                    if not node.readers:
                        below.add(self._queries.pop(query))
            nodes = below

    # -- resources -----------------------------------------------------------------------------------------

    def _build_resource(self, view: View, name: Name) -> Resource:
        self.counters.resources_built += 1
        try:
            built = self._build(view, name)
        except ImpureBuildError:
            raise
        except Exception as error:  # noqa: BLE001 - one broken resource must not stop the mesh
            self.counters.failures += 1
            built = Built(name.name, None, findings=(_failure(name, error),))
        return encode(name.type, built)


def _same_read(expected: Read, got: Read) -> None:
    if expected is not got and expected != got:
        raise ImpureBuildError(f"read {got!r} where it read {expected!r} before")


def _failure(name: Name, error: Exception) -> Finding:
    return finding(
        Code.NOT_BUILT, f"{name} could not be built ({type(error).__name__}: {error}); it is withheld"
    )
