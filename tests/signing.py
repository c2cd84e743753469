"""Photos with content credentials, signed by a throw-away maker under a throw-away authority:
trusted by nobody, or by whoever lists that authority."""

import datetime
import io
import time

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# What a signer's certificate says it is for.
PURPOSES = {"e-mail": "1.3.6.1.5.5.7.3.4", "C2PA": "1.3.6.1.4.1.62558.2.1"}
DAY = datetime.timedelta(days=1)
# The library is not to judge what it signs: it would refuse all purposes but the first.
_UNJUDGED = {"verify": {"verify_after_sign": False, "verify_trust": False}}


def _name(organization):
    values = {
        NameOID.COUNTRY_NAME: "DE",
        NameOID.ORGANIZATION_NAME: organization,
        NameOID.COMMON_NAME: "test",
    }
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values.items()])


class Signing:
    """authority: PEM of who issues the maker's certificate. chain: the maker's certificate with the
    authority's."""

    def __init__(self):
        self._issuer, self._own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.authority = self._certificate("Throw-away authority", self._issuer, 2 * DAY)
        self.chain = self._chain("e-mail", 2 * DAY)

    def _chain(self, purpose, valid):
        maker = self._certificate("Throw-away maker", self._own, valid, PURPOSES[purpose])
        return maker + self.authority

    def sign(
        self,
        source_type="",
        *,
        data,
        action="c2pa.created",
        parent=b"",
        relationship="parentOf",
        mime="image/jpeg",
        purpose="e-mail",
        valid=2 * DAY,
    ):
        """The photo `data` with a manifest of one action. parent: a JPEG that it was made from.
        valid: how long the maker's certificate is."""
        step = {"action": action}
        if source_type:
            step["digitalSourceType"] = SOURCE_TYPES + source_type
        if parent:
            step["parameters"] = {"ingredientIds": ["before"]}
        steps = [step]
        if relationship == "componentOf":  # a part is put into something that was made before
            steps.insert(
                0, {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPES + "composite"}
            )
        manifest = {
            "claim_generator_info": [{"name": "test program", "version": "1"}],
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": steps}}],
        }
        builder = c2pa.Builder(manifest, context=c2pa.Context(c2pa.Settings.from_dict(_UNJUDGED)))
        if parent:
            ingredient = {"title": "before", "instance_id": "before", "relationship": relationship}
            builder.add_ingredient(ingredient, "image/jpeg", io.BytesIO(parent))
        key = self._own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = self._chain(purpose, valid).encode()
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", chain, key, None))
        out = io.BytesIO()
        builder.sign(signer, mime, io.BytesIO(data), out)
        return out.getvalue()

    def expired(self, data):
        """A capture signed with a certificate that has run out since, without a time stamp. Takes 2
        seconds, on a busy machine more."""
        for seconds in (1, 10):
            try:
                valid = datetime.timedelta(seconds=seconds)
                signed = self.sign("digitalCapture", data=data, valid=valid)
            except c2pa.C2paError:  # it ran out before
                continue
            time.sleep(seconds + 1)
            return signed
        raise TimeoutError("signing takes more than 10 seconds")

    def _certificate(self, subject, key, valid, purpose=""):
        """A certificate in PEM. purpose: of a signer's; without one it is the authority's own."""
        now, issues = datetime.datetime.now(datetime.UTC), not purpose
        own, issuer = key.public_key(), self._issuer.public_key()
        uses = [not issues, False, False, False, False, issues, issues, False, False]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("Throw-away authority"))
            .public_key(own)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + valid)
            .add_extension(x509.BasicConstraints(issues, None), critical=True)
            .add_extension(x509.KeyUsage(*uses), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
            )
        )
        if purpose:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ObjectIdentifier(purpose)]), critical=False
            )
        made = builder.sign(self._issuer, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()
