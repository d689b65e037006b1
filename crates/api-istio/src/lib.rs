//! Istio kinds and MeshConfig: types, field documentation, CRD schemas.
