//! What distinguishes one running service from another: its name, version and environment.

use std::str::FromStr;

use crate::limits::MAX_FLOOD_FACTOR;

/// The services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    /// The web page, which asks details and reviews.
    Productpage,
    /// The facts about a book.
    Details,
    /// Two reviews; versions 2 and 3 ask ratings for stars.
    Reviews,
    /// Stars per reviewer.
    Ratings,
    /// What ratings remember.
    RatingsDb,
}

impl ServiceName {
    /// The port that it is expected on.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::RatingsDb => 6379,
            _ => 9080,
        }
    }
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "productpage" => Ok(Self::Productpage),
            "details" => Ok(Self::Details),
            "reviews" => Ok(Self::Reviews),
            "ratings" => Ok(Self::Ratings),
            "ratingsdb" => Ok(Self::RatingsDb),
            other => Err(format!(
                "\"{other}\" is not a bookinfo service: productpage, details, reviews, ratings or ratingsdb"
            )),
        }
    }
}

/// A service's settings, from its arguments and environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which service this is.
    pub service: ServiceName,
    /// Its version; `v2` and `v3` of reviews have stars, `v-faulty` and others of ratings misbehave.
    pub version: String,
    /// The name of this instance, shown on the page (`POD_NAME`, else `HOSTNAME`, else service and version).
    pub instance: String,
    /// The name of the cluster, shown beside it (`CLUSTER_NAME`).
    pub cluster: Option<String>,
    /// Base URL of details (`DETAILS_HOSTNAME`, `DETAILS_SERVICE_PORT`, `SERVICES_DOMAIN`).
    pub details_url: String,
    /// Base URL of reviews (`REVIEWS_HOSTNAME`, `REVIEWS_SERVICE_PORT`, `SERVICES_DOMAIN`).
    pub reviews_url: String,
    /// Base URL of ratings (`RATINGS_HOSTNAME`, `RATINGS_SERVICE_PORT`, `SERVICES_DOMAIN`).
    pub ratings_url: String,
    /// `host:port` of the database in which ratings remember what was posted; by default they do it themselves
    /// (`RATINGS_DATABASE`, the name of its service, and its `_HOSTNAME` and `_SERVICE_PORT`).
    pub ratings_database: Option<String>,
    /// The colour of the stars, if reviews ask ratings at all (`ENABLE_RATINGS`, `STAR_COLOR`).
    pub star_color: Option<String>,
    /// Extra requests to reviews for each page (`FLOOD_FACTOR`).
    pub flood_factor: usize,
}

impl Settings {
    /// Reads the environment through `variable`, which is `std::env::var(name).ok()` outside of tests.
    #[must_use]
    pub fn new(service: ServiceName, version: &str, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let domain = variable("SERVICES_DOMAIN").map_or_else(String::new, |domain| format!(".{domain}"));
        let url = |name: &str| {
            let upper = name.to_ascii_uppercase();
            let host = variable(&format!("{upper}_HOSTNAME")).unwrap_or_else(|| name.to_owned());
            let port = variable(&format!("{upper}_SERVICE_PORT")).unwrap_or_else(|| "9080".to_owned());
            format!("http://{host}{domain}:{port}")
        };
        let name = format!("{service:?}").to_ascii_lowercase();
        let instance = variable("POD_NAME").or_else(|| variable("HOSTNAME"));
        Self {
            service,
            version: version.to_owned(),
            instance: instance.unwrap_or_else(|| format!("{name}-{version}")),
            cluster: variable("CLUSTER_NAME"),
            details_url: url("details"),
            reviews_url: url("reviews"),
            ratings_url: url("ratings"),
            ratings_database: variable("RATINGS_DATABASE").map(|name| {
                let upper = name.to_ascii_uppercase();
                let host = variable(&format!("{upper}_HOSTNAME")).unwrap_or(name);
                let port = variable(&format!("{upper}_SERVICE_PORT"));
                format!("{host}{domain}:{}", port.as_deref().unwrap_or("6379"))
            }),
            star_color: star_color(version, variable),
            flood_factor: variable("FLOOD_FACTOR")
                .and_then(|factor| factor.parse().ok())
                .map_or(0, |factor: usize| factor.min(MAX_FLOOD_FACTOR)),
        }
    }
}

/// The version decides, as the sample's images do; the environment overrides it.
fn star_color(version: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let default = match version {
        "v2" => Some("black"),
        "v3" => Some("red"),
        _ => None,
    };
    let enabled = variable("ENABLE_RATINGS").map_or(default.is_some(), |enabled| enabled == "true");
    enabled.then(|| variable("STAR_COLOR").unwrap_or_else(|| default.unwrap_or("black").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_settings(version: &str, environment: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Settings::new(ServiceName::Reviews, version, &variable)
    }

    #[test]
    fn the_version_decides_about_stars() {
        assert_eq!(check_settings("v1", &[]).star_color, None);
        assert_eq!(check_settings("v2", &[]).star_color.as_deref(), Some("black"));
        assert_eq!(check_settings("v3", &[]).star_color.as_deref(), Some("red"));
    }

    #[test]
    fn the_environment_overrides_the_version() {
        let blue = check_settings("v4", &[("ENABLE_RATINGS", "true"), ("STAR_COLOR", "blue")]);
        assert_eq!(blue.star_color.as_deref(), Some("blue"));
        assert_eq!(
            check_settings("v3", &[("ENABLE_RATINGS", "false")]).star_color,
            None
        );
    }

    #[test]
    fn other_services_are_found_by_hostname_port_and_domain() {
        let moved = check_settings(
            "v2",
            &[
                ("RATINGS_HOSTNAME", "stars"),
                ("RATINGS_SERVICE_PORT", "80"),
                ("SERVICES_DOMAIN", "books.svc"),
            ],
        );
        assert_eq!(moved.ratings_url, "http://stars.books.svc:80");
        assert_eq!(check_settings("v2", &[]).ratings_url, "http://ratings:9080");
    }
}
