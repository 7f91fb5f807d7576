"""HttpPolicy as Envoy's filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.extensions.compression.brotli.compressor.v3 import brotli_pb2
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2
from envoy.extensions.compression.zstd.compressor.v3 import zstd_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2
from envoy.extensions.filters.http.grpc_json_transcoder.v3 import transcoder_pb2

from retia.config.schema.http_policy import Algorithm, Compression, Transcoding
from retia.model.snapshot import View
from retia.policy.http_policy import Handling, gateway_handling, port_handling
from retia.translate import pb
from retia.translate.filters import HttpFilter, Order, Place

BUFFER = "envoy.filters.http.buffer"
COMPRESSOR = "envoy.filters.http.compressor"
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"

_LIBRARIES: dict[Algorithm, tuple[str, Any]] = {
    Algorithm.GZIP: ("gzip", gzip_pb2.Gzip()),
    Algorithm.BROTLI: ("brotli", brotli_pb2.Brotli()),
    Algorithm.ZSTD: ("zstd", zstd_pb2.Zstd()),
}


def port_filters(view: View, number: int) -> Iterator[HttpFilter]:
    """The filters of one port of the workload."""
    yield from _filters(view.query(port_handling, number))


def handling_filters(view: View, place: Place) -> Iterator[HttpFilter]:
    """The filters of a gateway."""
    if place is Place.GATEWAY:
        yield from _filters(view.query(gateway_handling, ""))


def _filters(handling: Handling) -> Iterator[HttpFilter]:
    if handling.max_request_bytes:
        config = buffer_pb2.Buffer()
        config.max_request_bytes.value = handling.max_request_bytes
        yield HttpFilter(Order.BODY_LIMIT, BUFFER, pb.packed(config))
    if handling.transcoding is not None:
        yield HttpFilter(Order.TRANSCODER, TRANSCODER, pb.packed(_transcoder(handling.transcoding)))
    if handling.compression is not None:
        for algorithm in handling.compression.algorithms:
            config = _compressor(handling.compression, algorithm)
            yield HttpFilter(Order.COMPRESSOR, f"{COMPRESSOR}.{_LIBRARIES[algorithm][0]}", pb.packed(config))


def _compressor(rule: Compression, algorithm: Algorithm) -> Any:
    name, library = _LIBRARIES[algorithm]
    config = compressor_pb2.Compressor()
    config.compressor_library.name = name
    pb.pack(config.compressor_library.typed_config, library)
    common = config.response_direction_config.common_config
    common.min_content_length.value = rule.min_bytes
    common.content_type.extend(rule.content_types)
    config.choose_first = algorithm is rule.algorithms[0]
    return config


def _transcoder(rule: Transcoding) -> Any:
    config = transcoder_pb2.GrpcJsonTranscoder()
    config.proto_descriptor_bin = rule.descriptor
    config.services.extend(rule.services)
    config.auto_mapping = rule.auto_mapping
    config.ignore_unknown_query_parameters = rule.ignore_unknown_parameters
    config.print_options.always_print_primitive_fields = rule.print_defaults
    # A failed call becomes an HTTP status with the error as JSON.
    config.convert_grpc_status = True
    return config
