//! Where in a request a text was found.

/// A place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Place {
    /// The path, whole and segment by segment.
    Path,
    /// The value of a query parameter.
    Query,
    /// The name of a query parameter.
    QueryName,
    /// The value of a form field.
    Form,
    /// The name of a form field.
    FormName,
    /// A string or number in a JSON body.
    Json,
    /// A name in a JSON body.
    JsonName,
    /// The value of a multipart field.
    Multipart,
    /// The name of a multipart field.
    MultipartName,
    /// The file name of a multipart field.
    FileName,
    /// The content of an uploaded text file.
    File,
    /// A body of another kind, such as XML.
    Text,
    /// The value of a cookie.
    Cookie,
    /// The name of a cookie.
    CookieName,
    /// Part of the header `Referer`.
    Referer,
    /// The header `User-Agent`.
    UserAgent,
    /// The header `Host`.
    Host,
    /// Another header.
    Header,
    /// A header with a grammar of its own, such as `Accept`.
    KnownHeader,
    /// The request as a whole.
    Request,
}

/// A set of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places(u32);

impl Place {
    const fn bit(self) -> u32 {
        1 << (self as u8)
    }

    /// Returns the name that rules and logs use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::QueryName => "query-name",
            Self::Form => "form",
            Self::FormName => "form-name",
            Self::Json => "json",
            Self::JsonName => "json-name",
            Self::Multipart => "multipart",
            Self::MultipartName => "multipart-name",
            Self::FileName => "file-name",
            Self::File => "file",
            Self::Text => "text",
            Self::Cookie => "cookie",
            Self::CookieName => "cookie-name",
            Self::Referer => "referer",
            Self::UserAgent => "user-agent",
            Self::Host => "host",
            Self::Header => "header",
            Self::KnownHeader => "known-header",
            Self::Request => "request",
        }
    }
}

impl Places {
    /// Contains no place.
    pub(super) const NONE: Self = Self(0);

    const NAMES: Self = Self::of(&[
        Place::QueryName,
        Place::FormName,
        Place::JsonName,
        Place::MultipartName,
        Place::CookieName,
    ]);

    const ARGS: Self = Self::of(&[
        Place::Query,
        Place::Form,
        Place::Json,
        Place::Multipart,
        Place::Text,
        Place::QueryName,
        Place::FormName,
        Place::JsonName,
        Place::MultipartName,
    ]);

    const BODY: Self = Self::of(&[
        Place::Form,
        Place::FormName,
        Place::Json,
        Place::JsonName,
        Place::Multipart,
        Place::MultipartName,
        Place::FileName,
        Place::Text,
    ]);

    const HEADERS: Self = Self::of(&[Place::Referer, Place::UserAgent, Place::Header]);

    const COOKIES: Self = Self::of(&[Place::Cookie, Place::CookieName]);

    /// Contains what clients choose freely: not the host, uploaded files and known headers.
    pub(super) const ANY: Self =
        Self(Self::ARGS.0 | Self::BODY.0 | Self::HEADERS.0 | Self::COOKIES.0 | Place::Path.bit());

    const fn of(places: &[Place]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < places.len() {
            bits |= places[index].bit();
            index += 1;
        }
        Self(bits)
    }

    /// Returns the places that a name in a rule stands for.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::ANY,
            "args" => Self::ARGS,
            "body" => Self::BODY,
            "names" => Self::NAMES,
            "headers" => Self::HEADERS,
            "cookies" => Self::COOKIES,
            _ => {
                let place = ALL.iter().find(|place| place.name() == name)?;
                Self(place.bit())
            }
        })
    }

    /// Returns both sets together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns this set without the places of another.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set contains a place.
    pub(super) const fn contains(self, place: Place) -> bool {
        self.0 & place.bit() != 0
    }
}

/// All places, in their order.
pub(super) const ALL: [Place; 20] = [
    Place::Path,
    Place::Query,
    Place::QueryName,
    Place::Form,
    Place::FormName,
    Place::Json,
    Place::JsonName,
    Place::Multipart,
    Place::MultipartName,
    Place::FileName,
    Place::File,
    Place::Text,
    Place::Cookie,
    Place::CookieName,
    Place::Referer,
    Place::UserAgent,
    Place::Host,
    Place::Header,
    Place::KnownHeader,
    Place::Request,
];
