"""What clients are told about the server and its models."""

from __future__ import annotations

from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.core.models import Models
from cellkeeper_service.domain.spec import ModelSpec, TensorSpec
from cellkeeper_service.rpc.catalog import Catalog

from .datatypes import CONFIG_TYPES, NAMES
from .signature import VERSION
from .tensor_names import TensorNames

EXTENSIONS = (
    "sequence",
    "sequence(string_id)",
    "binary_tensor_data",
    "parameters",
    "model_configuration",
    "statistics",
)
BACKEND = "cellkeeper"
FOR_EVER_US = 2**64 - 1


def server_metadata(version: str) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="cellkeeper", version=version, extensions=EXTENSIONS)


def repository_index(catalog: Catalog) -> pb.RepositoryIndexResponse:
    index = pb.RepositoryIndexResponse()
    for name in catalog.models:
        index.models.add(name=name, version=VERSION, state="READY")
    return index


def model_metadata(name: str, spec: ModelSpec, names: TensorNames, engine: str) -> pb.ModelMetadataResponse:
    """Describes the model. Shapes have the dimensions of its clients' layout."""
    metadata = pb.ModelMetadataResponse(name=name, versions=[VERSION], platform=f"{BACKEND}_{engine}")
    for called, part in names.inputs.items():
        metadata.inputs.add(name=called, datatype=NAMES[part.dtype], shape=names.layout.expected(part.shape)[0])
    for called, output in listed(spec, names):
        metadata.outputs.add(
            name=called, datatype=NAMES[output.dtype], shape=names.layout.declared_output(output.shape)
        )
    return metadata


def model_config(name: str, models: Models, names: TensorNames, ttl_ms: int) -> pb.ModelConfig:
    """ttl_ms: after which an idle session is deleted; 0: never."""
    served = models.default
    spec = served.spec
    config = pb.ModelConfig(
        name=name,
        platform=f"{BACKEND}_{served.engine.name}",
        backend=BACKEND,
        max_batch_size=int(names.layout.batch),
        version_policy=pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=[int(VERSION)])),
        sequence_batching=pb.ModelSequenceBatching(
            max_sequence_idle_microseconds=ttl_ms * 1000 or FOR_EVER_US,
            oldest=pb.ModelSequenceBatching.StrategyOldest(max_candidate_sequences=served.slot_count),
        ),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    for called, part in names.inputs.items():
        dims = names.layout.expected(part.shape)[0][names.layout.batch :]
        config.input.add(name=called, data_type=CONFIG_TYPES[part.dtype], dims=dims)
    for called, output in listed(spec, names):
        dims = names.layout.declared_output(output.shape)[names.layout.batch :]
        config.output.add(name=called, data_type=CONFIG_TYPES[output.dtype], dims=dims)
    config.parameters["fingerprint"].string_value = spec.fingerprint.hex()
    return config


def listed(spec: ModelSpec, names: TensorNames) -> list[tuple[str, TensorSpec]]:
    """Returns the outputs that the model is said to have, with the clients' names."""
    own = {output.name: output for output in spec.outputs}
    return [(called, own[names.outputs[called]]) for called in names.listed]
