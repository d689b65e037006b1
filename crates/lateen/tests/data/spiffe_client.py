"""Asks the Workload API with the package `spiffe`, and prints what it gets as one line of JSON.

Usage: spiffe_client.py FOLDER [UID]. The certificate and the roots go into FOLDER, the key goes nowhere. With UID it is
another user who asks.
"""

import json
import os
import pathlib
import shutil
import sys
import sysconfig

folder = pathlib.Path(sys.argv[1])
if len(sys.argv) > 2:
    # That user may not see the folder of the packages, which import more when they are first used.
    packages = folder / "packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages)
    sys.path.insert(0, str(packages))

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtSvid, TrustDomain, WorkloadApiClient
from spiffe.errors import PySpiffeError

domain = TrustDomain("cluster.local")


def pem(certificates):
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def told():
    with WorkloadApiClient() as client:
        svid = client.fetch_x509_svid(timeout=20)
        roots = client.fetch_x509_bundles(timeout=20).get_bundle_for_trust_domain(domain)
        (folder / "chain.pem").write_bytes(pem(svid.cert_chain))
        (folder / "roots.pem").write_bytes(pem(roots.x509_authorities))
        token = client.fetch_jwt_svid(audience={"shop"}, timeout=20)
        keys = client.fetch_jwt_bundles(timeout=20).get_bundle_for_trust_domain(domain)
        # Once by the package itself, with the keys, and once by the node agent.
        read = JwtSvid.parse_and_validate(token.token, keys, {"shop"})
        validated = client.validate_jwt_svid(token.token, "shop", timeout=20)
        refused = []
        try:
            client.validate_jwt_svid(token.token, "else", timeout=20)
        except PySpiffeError as error:
            refused.append(type(error).__name__)
        return {
            "x509": str(svid.spiffe_id),
            "key": svid.private_key.public_key() == svid.leaf.public_key(),
            "jwt": [str(read.spiffe_id), str(validated.spiffe_id)],
            "audience": sorted(read.audience),
            "refused": refused,
        }


if len(sys.argv) > 2:
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
try:
    print(json.dumps(told()), flush=True)
except PySpiffeError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
