"""The one error tree of both services: each class carries Azure's six-digit code, public name and default message.

Not here: how an error looks on a wire; that is the table in ``muster.frontends.status``. HTTP status = code // 1000,
so there is no second list of statuses. Sources: hub-service.md 1.7, hub-device.md 17, dps.md 6.9.

::

    ServiceError
      BadRequestError 400           InvalidProtocolVersionError InvalidOperationError ArgumentInvalidError
                                    ArgumentNullError FormatError BlobContainerError StorageNotConfiguredError
                                    NoHubAvailableError CustomAllocationFailedError CustomAllocationHubMissingError
                                    CustomAllocationUnauthorizedError CertificateRequestError
                                    CertificateIssuanceFailedError DeviceDefinedTwiceError
                                    FaultInjectionError ForcedByFaultError PartitionUnknownError
      UnauthorizedError 401         UnauthorizedAccessError InvalidCertificateError CaCertificateNotFoundError
                                    TokenExpiredError TpmChallengeError BearerTokenRefusedError
                                    InvalidSignatureError
      ForbiddenError 403            QuotaExceededError QueueDepthExceededError DeviceDisabledError
                                    TooManyMethodsError TooManyTokensError TooManyLinksError
      NotFoundError 404             DeviceNotFoundError EnrollmentNotFoundError RegistrationNotFoundError
                                    CaCertificateMissingError ResourceNotFoundError ModuleMissingError
                                    DeviceNotOnlineError DeviceConnectionClosedError AddressNotFoundError
                                    JobMissingError
      NotAllowedError 405
      ConflictError 409             DeviceAlreadyExistsError RegistrationConflictError ModuleAlreadyExistsError
                                    LinkCreationConflictError ReceiverDisconnectedError
      PreconditionFailedError 412   MessageLockLostError
      TooLargeError 413             TooManyDevicesError TooManyModulesError
      UnsupportedMediaTypeError 415
      MisdirectedRequestError 421
      ThrottledError 429
      ServerError 500
      BadDeviceResponseError 502
      UnavailableError 503
      GatewayTimeoutError 504
"""

from typing import ClassVar

from muster.pki.problem import Problem


class ServiceError(Exception):
    """A refusal that a client is told about. ``message`` is safe for the wire; ``retry_after`` is in whole seconds.

    ``tracking_id`` is set by whoever recorded a report of this refusal; a front end that finds none makes one.
    """

    code: ClassVar[int] = 500001
    name: ClassVar[str] = "ServerError"
    message: str = "An unexpected error occurred."

    def __init__(
        self, message: str | None = None, *, retry_after: int | None = None, tracking_id: str | None = None
    ) -> None:
        super().__init__(message or self.message)
        if message is not None:
            self.message = message
        self.retry_after = retry_after
        self.tracking_id = tracking_id

    @property
    def status(self) -> int:
        """The HTTP-like status, 400 to 504."""
        return self.code // 1000


class BadRequestError(ServiceError):
    code = 400000
    name = "GenericBadRequest"
    message = "The request is not valid."


class InvalidProtocolVersionError(BadRequestError):
    code = 400001
    name = "InvalidProtocolVersion"
    message = "The api-version is missing or not a date such as 2021-04-12."


class InvalidOperationError(BadRequestError):
    """A cloud-to-device message that names no receiver, or is none at all (hub-service.md 1.7, 6.4)."""

    code = 400003
    name = "InvalidOperation"
    message = "The operation is not valid."


class ArgumentInvalidError(BadRequestError):
    code = 400004
    name = "ArgumentInvalid"
    message = "An argument is not valid."


class ArgumentNullError(BadRequestError):
    code = 400005
    name = "ArgumentNull"
    message = "A required value is missing."


class FormatError(BadRequestError):
    code = 400006
    name = "IotHubFormatError"
    message = "The body is not valid JSON for this operation."


class DeviceDefinedTwiceError(BadRequestError):
    """Two items of a bulk request name one identity (hub-service.md 2.6)."""

    code = 400011
    name = "DeviceDefinedMultipleTimes"
    message = "A device is defined more than once."


class BlobContainerError(BadRequestError):
    """A container for the identities of a hub that cannot be used (hub-service.md 2.8)."""

    code = 400008
    name = "BlobContainerValidationError"
    message = "The blob container cannot be used."


class StorageNotConfiguredError(BadRequestError):
    """No storage account takes a device's files (hub-device.md 10.4)."""

    code = 400014
    name = "DefaultStorageEndpointNotConfigured"
    message = "The hub has no storage account for file uploads."


class NoHubAvailableError(BadRequestError):
    """No linked hub can take the device; the number is ours, Azure's is not known (dps.md 5.2, 11)."""

    code = 400210
    name = "IotHubNotAvailable"
    message = "No IoT hubs available."


class CustomAllocationFailedError(BadRequestError):
    code = 400207
    name = "CustomAllocationFailed"
    message = "Custom allocation failed."


class CustomAllocationHubMissingError(BadRequestError):
    code = 400208
    name = "CustomAllocationIotHubNotSpecified"
    message = "The custom allocation webhook named no linked hub."


class CustomAllocationUnauthorizedError(BadRequestError):
    code = 400209
    name = "CustomAllocationUnauthorizedAccess"
    message = "The custom allocation webhook answered 401."


class CertificateRequestError(BadRequestError):
    """DPS: ``csr`` in a register request cannot be taken; the number is inferred (dps.md 1.3)."""

    code = 400004
    name = "InvalidCertificateRequest"
    message = "Invalid certificate signing request."


class CertificateIssuanceFailedError(BadRequestError):
    """DPS: no certificate could be issued; the number is ours. ``problems`` has each reason on its own."""

    code = 400211
    name = "CertificateIssuanceFailed"
    message = "Certificate issuance failed."

    def __init__(self, message: str | None = None, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ForcedByFaultError(BadRequestError):
    """The end of what a device asked to be ended (hub-device.md 13)."""

    code = 400029
    name = "ConnectionForcefullyClosedOnFaultInjection"
    message = "The connection is closed: a fault is being injected."


class PartitionUnknownError(BadRequestError):
    """An event hub has no such partition; the number is ours (hub-service.md 8.5)."""

    code = 400212
    name = "PartitionUnknown"
    message = "The specified partition is invalid for an EventHub partition."


class FaultInjectionError(BadRequestError):
    """A device that connects while its line is down because it asked for that (hub-device.md 13)."""

    code = 400030
    name = "ConnectionRejectedOnFaultInjection"
    message = "The connection is rejected: a fault is being injected."


class UnauthorizedError(ServiceError):
    """A wrong device key at DPS over MQTT (dps.md 11)."""

    code = 401000
    name = "Unauthorized"
    message = "Unauthorized"


class UnauthorizedAccessError(UnauthorizedError):
    code = 401002
    name = "IotHubUnauthorizedAccess"
    message = "Unauthorized"


class InvalidSignatureError(UnauthorizedAccessError):
    """Hub, device plane: told as any other refusal, but by ``$cbs``, which says so (hub-device.md 2.5)."""


class InvalidCertificateError(UnauthorizedError):
    """DPS: not the enrolled certificate, not in its dates, or not for this registration id (dps.md 4.5, 6.9)."""

    code = 401002
    name = "InvalidCertificate"
    message = "Invalid certificate."


class CaCertificateNotFoundError(UnauthorizedError):
    """DPS: no enrollment matches the certificate chain (dps.md 4.1)."""

    code = 401002
    name = "CaCertificateNotFound"
    message = "CA certificate not found."


class TpmChallengeError(UnauthorizedError):
    """DPS: no refusal but the first half of TPM attestation; ``authentication_key`` is base64 (dps.md 4.6)."""

    code = 401002
    name = "TpmChallenge"
    message = "Authorization required, resend request using supplied key"

    def __init__(self, authentication_key: str = "") -> None:
        super().__init__()
        self.authentication_key = authentication_key


class TokenExpiredError(UnauthorizedError):
    """Hub, device plane: an expired token or a certificate that is out of its dates (hub-device.md 2.5)."""

    code = 401003
    name = "IotHubUnauthorized"
    message = "Unauthorized"


class BearerTokenRefusedError(UnauthorizedError):
    """Resource Manager's routes: no bearer token of this Muster (DESIGN.md 2)."""

    code = 401002
    name = "InvalidAuthenticationToken"
    message = "The bearer token is not valid."


class ForbiddenError(ServiceError):
    code = 403000
    name = "GenericForbidden"
    message = "The operation is not permitted."


class QuotaExceededError(ForbiddenError):
    code = 403002
    name = "IotHubQuotaExceeded"
    message = "The quota is exceeded."


class QueueDepthExceededError(ForbiddenError):
    """The 51st cloud-to-device message that waits for one device (hub-device.md 5.1)."""

    code = 403004
    name = "DeviceMaximumQueueDepthExceeded"
    message = "The queue of the device is full."


class TooManyMethodsError(ForbiddenError):
    """More direct methods wait for one device's answers than the hub allows (hub-device.md 6.1)."""

    code = 403800
    name = "DeviceMaximumInflightMethodExceeded"
    message = "Too many direct methods wait for the answer of this device."


class TooManyTokensError(ForbiddenError):
    """More tokens were put on one AMQP connection than the hub keeps (hub-device.md 9.2)."""

    code = 403005
    name = "IotHubMaxCbsTokenExceeded"
    message = "Too many tokens were put on this connection."


class TooManyLinksError(ForbiddenError):
    """More links were attached on one AMQP connection than the hub serves; the number is ours."""

    code = 403013
    name = "AmqpLinkLimitExceeded"
    message = "Too many links are attached on this connection."


class DeviceDisabledError(ForbiddenError):
    code = 403012
    name = "DeviceDisabled"
    message = "The device is disabled."


class NotFoundError(ServiceError):
    code = 404000
    name = "GenericNotFound"
    message = "Not found."


class DeviceNotFoundError(NotFoundError):
    code = 404001
    name = "DeviceNotFound"
    message = "Device not found."


class AddressNotFoundError(NotFoundError):
    """A link to what is no address of a hub or a provisioning service (hub-device.md 9.9, 17)."""

    code = 404006
    name = "AmqpAddressNotFound"
    message = "The link address did not match any of the expected formats."


class JobMissingError(NotFoundError):
    """There is no such import or export (hub-service.md 1.7)."""

    code = 404002
    name = "JobNotFound"
    message = "Job not found."


class ModuleMissingError(NotFoundError):
    """The device has no such module identity (hub-service.md 1.7)."""

    code = 404010
    name = "ModuleNotFound"
    message = "Module not found."


class EnrollmentNotFoundError(NotFoundError):
    code = 404201
    name = "EnrollmentNotFound"
    message = "Enrollment not found."


class RegistrationNotFoundError(NotFoundError):
    """dps.md 11 guesses 404202 for registration records and operations."""

    code = 404202
    name = "RegistrationNotFound"
    message = "Registration not found."


class NotAllowedError(ServiceError):
    code = 405000
    name = "MethodNotAllowed"
    message = "The method is not allowed here."


class CaCertificateMissingError(NotFoundError):
    """No CA certificate of that name was uploaded; the number is ours."""

    code = 404203
    name = "CertificateNotFound"
    message = "Certificate not found."


class ResourceNotFoundError(NotFoundError):
    """Resource Manager's routes: no resource of that name; the number is ours, the name is Azure's."""

    code = 404204
    name = "ResourceNotFound"
    message = "The resource was not found."


class ConflictError(ServiceError):
    code = 409000
    name = "GenericConflict"
    message = "The operation conflicts with another one."


class DeviceAlreadyExistsError(ConflictError):
    code = 409001
    name = "DeviceAlreadyExists"
    message = "The device is already registered."


class ModuleAlreadyExistsError(ConflictError):
    code = 409301
    name = "ModuleAlreadyExistsOnDevice"
    message = "The device already has the module."


class RegistrationConflictError(ConflictError):
    code = 409203
    name = "RegistrationConflict"
    message = "Precondition failed."


class ReceiverDisconnectedError(ConflictError):
    """A reader of a partition gives way to one with an owner level; the number is ours (hub-service.md 8.5)."""

    code = 409204
    name = "ReceiverDisconnected"
    message = "Another receiver owns the partition."


class DeviceNotOnlineError(NotFoundError):
    """A direct method to a device that is not connected, or does not listen for methods (hub-service.md 5)."""

    code = 404103
    name = "DeviceNotOnline"
    message = "Timed out waiting for device to connect."


class DeviceConnectionClosedError(NotFoundError):
    """The device went away before it answered a direct method (hub-device.md 6.2)."""

    code = 404104
    name = "DeviceConnectionClosedRemotely"
    message = "The device disconnected before it answered."


class LinkCreationConflictError(ConflictError):
    """A newer connection or link of the same identity took over (hub-device.md 3.4, 9.7)."""

    code = 409002
    name = "LinkCreationConflict"
    message = "Another AMQP Client has opened a Receive Link."


class PreconditionFailedError(ServiceError):
    """An If-Match that does not match, or is missing where one is needed."""

    code = 412001
    name = "PreconditionFailed"
    message = "Precondition failed. The ETag does not match."


class MessageLockLostError(PreconditionFailedError):
    """A lock token that lapsed, was used, or never was (hub-device.md 5.1)."""

    code = 412002
    name = "DeviceMessageLockLost"
    message = "The lock on the message is lost: it lapsed, or the message is settled."


class TooLargeError(ServiceError):
    code = 413001
    name = "MessageTooLarge"
    message = "The message is too large."


class TooManyDevicesError(TooLargeError):
    """More items than a bulk request may have (hub-service.md 2.6)."""

    code = 413002
    name = "TooManyDevices"
    message = "There are too many devices."


class TooManyModulesError(TooLargeError):
    code = 413003
    name = "TooManyModulesOnDevice"
    message = "There are too many modules on the device."


class UnsupportedMediaTypeError(ServiceError):
    code = 415000
    name = "UnsupportedMediaType"
    message = "The content type must be application/json."


class MisdirectedRequestError(ServiceError):
    """A Host that this server does not have: the answer to DNS rebinding (DESIGN.md 5)."""

    code = 421000
    name = "MisdirectedRequest"
    message = "This server does not answer under that host name."


class ThrottledError(ServiceError):
    code = 429001
    name = "ThrottlingException"
    message = "The request has been throttled."


class ServerError(ServiceError):
    code = 500001
    name = "ServerError"


class UnavailableError(ServiceError):
    code = 503001
    name = "ServiceUnavailable"
    message = "The service is not available."


class BadDeviceResponseError(ServiceError):
    """A device answered a direct method with what is no JSON; the number is ours (hub-service.md 5)."""

    code = 502000
    name = "BadDeviceResponse"
    message = "The answer of the device is not valid JSON."


class GatewayTimeoutError(ServiceError):
    code = 504101
    name = "GatewayTimeout"
    message = "Timed out waiting for the response from device."
