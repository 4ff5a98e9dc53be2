"""The service, and where it is registered."""

from __future__ import annotations

from cellkeeper_proto.kserve import inference_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PATH = "inference.GRPCInferenceService"
"""What the protocol calls the service."""
