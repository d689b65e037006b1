//! The one header type of the data plane: a block of bytes with an index, for HTTP/1 and HTTP/2.
//!
//! A head is copied once into the block, names in lower case; fields are offsets into it. Fields that filters
//! add are written behind it as complete lines. So whatever was not touched is still one contiguous run of
//! bytes when the head is sent on, and a message costs no allocation once the block has grown to its size.

use crate::header_id::{HeaderId, ID_COUNT};

/// Something that names a header field: a [`HeaderId`], a compiled [`HeaderName`], or lower-case bytes or text.
pub trait Name {
    /// The id, when the name is a well-known one.
    fn id(&self) -> Option<HeaderId>;
    /// The name in lower case.
    fn bytes(&self) -> &[u8];
}

impl Name for HeaderId {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        Some(*self)
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.name().as_bytes()
    }
}

impl Name for [u8] {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        HeaderId::from_name(self)
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> Name for [u8; N] {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        HeaderId::from_name(self)
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Name for str {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        HeaderId::from_name(self.as_bytes())
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Name for String {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        self.as_str().id()
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<T: Name + ?Sized> Name for &T {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        (**self).id()
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }
}

/// A header name of the configuration, in lower case and with its id looked up once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName {
    id: Option<HeaderId>,
    name: Box<str>,
}

impl HeaderName {
    /// Compiles a configured name; upper case is folded.
    pub fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        // HTTP/1 calls the authority Host, Envoy's configuration may use either word.
        let name = if name == "host" {
            HeaderId::Authority.name().to_owned()
        } else {
            name
        };
        HeaderName {
            id: HeaderId::from_name(name.as_bytes()),
            name: name.into_boxed_str(),
        }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl Name for HeaderName {
    #[inline]
    fn id(&self) -> Option<HeaderId> {
        self.id
    }
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.name.as_bytes()
    }
}

/// A piece of the block.
#[derive(Clone, Copy, Default, Debug)]
struct Span {
    offset: u32,
    length: u32,
}

/// One field line. Names longer than 64 KiB are refused by every head limit before they come here.
#[derive(Clone, Copy, Debug)]
struct Field {
    name_offset: u32,
    value_offset: u32,
    value_length: u32,
    name_length: u16,
    /// The id, [`UNKNOWN`] or [`REMOVED`].
    id: u8,
    /// The block holds this field as `name: value\r\n`, so that it can be sent as it stands.
    is_canonical: bool,
}

/// Marks a field whose name is not a well-known one.
const UNKNOWN: u8 = 254;
/// Marks a field that was removed.
const REMOVED: u8 = 255;
/// How many pseudo-header fields a message can carry; their ids come first.
const PSEUDO_COUNT: usize = HeaderId::Protocol as usize + 1;
/// Marks an absent pseudo-header field.
const ABSENT: Span = Span {
    offset: u32::MAX,
    length: 0,
};

impl Field {
    fn line_end(&self) -> u32 {
        self.value_offset + self.value_length + 2
    }
}

/// Header fields of one message, in order, with pseudo-header fields beside them.
///
/// Names given to look-ups must be in lower case. `host` is kept as `:authority`, as HTTP/2 and Envoy do, and
/// either name finds it. Removing and replacing leave the order of the other fields alone.
#[derive(Clone, Debug)]
pub struct Headers {
    block: Vec<u8>,
    fields: Vec<Field>,
    pseudo: [Span; PSEUDO_COUNT],
    /// Index + 1 of the first live field of each id, 0 when there is none.
    first: [u16; ID_COUNT],
    live: u16,
}

impl Default for Headers {
    fn default() -> Self {
        Self::new()
    }
}

impl Headers {
    /// An empty set; allocates nothing.
    pub fn new() -> Self {
        Headers {
            block: Vec::new(),
            fields: Vec::new(),
            pseudo: [ABSENT; PSEUDO_COUNT],
            first: [0; ID_COUNT],
            live: 0,
        }
    }

    /// Empties the set and keeps its memory for the next message.
    pub fn clear(&mut self) {
        self.block.clear();
        self.fields.clear();
        self.pseudo = [ABSENT; PSEUDO_COUNT];
        self.first = [0; ID_COUNT];
        self.live = 0;
    }

    /// Number of fields, pseudo-header fields not counted.
    pub fn len(&self) -> usize {
        usize::from(self.live)
    }

    /// True when there is no field but pseudo-header fields.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The first value of a field, or of a pseudo-header field such as `:path`.
    #[inline]
    pub fn get<N: Name + ?Sized>(&self, name: &N) -> Option<&[u8]> {
        match name.id() {
            Some(id) => self.get_id(id),
            None => self
                .fields
                .iter()
                .find(|field| self.is_named(field, name.bytes()))
                .map(|field| self.value(field)),
        }
    }

    /// The first value of a well-known field: one load from the index.
    #[inline]
    pub fn get_id(&self, id: HeaderId) -> Option<&[u8]> {
        let id = stored_as(id);
        if id.is_pseudo() {
            return self.pseudo(id);
        }
        let index = self.first[id as usize];
        if index == 0 {
            None
        } else {
            Some(self.value(&self.fields[usize::from(index) - 1]))
        }
    }

    /// Every value of a field, in order.
    pub fn get_all<'a, N: Name + ?Sized>(&'a self, name: &'a N) -> impl Iterator<Item = &'a [u8]> + 'a {
        let id = name.id().map(stored_as);
        let pseudo = id.filter(|id| id.is_pseudo()).and_then(|id| self.pseudo(id));
        let start = match id {
            Some(id) if self.first[id as usize] == 0 => self.fields.len(),
            Some(id) => usize::from(self.first[id as usize]) - 1,
            None => 0,
        };
        let fields = self.fields[start..].iter().filter(move |field| match id {
            Some(id) => field.id == id as u8,
            None => self.is_named(field, name.bytes()),
        });
        pseudo.into_iter().chain(fields.map(|field| self.value(field)))
    }

    /// True when the field is present.
    #[inline]
    pub fn contains<N: Name + ?Sized>(&self, name: &N) -> bool {
        self.get(name).is_some()
    }

    /// How many fields of this name there are.
    pub fn count<N: Name + ?Sized>(&self, name: &N) -> usize {
        self.get_all(name).count()
    }

    /// Gives a field exactly one value. An existing first field keeps its place; others of the name go.
    pub fn set<N: Name + ?Sized>(&mut self, name: &N, value: &[u8]) {
        let id = name.id().map(stored_as);
        if let Some(id) = id.filter(|id| id.is_pseudo()) {
            return self.set_pseudo(id, value);
        }
        match self.position(id, name.bytes()) {
            None => self.push_line(id, name.bytes(), value),
            Some(index) => {
                self.replace(index, value);
                let name = name.bytes();
                for other in index + 1..self.fields.len() {
                    if self.is_same(other, id, name) {
                        self.remove_at(other);
                    }
                }
            }
        }
    }

    /// Adds a field behind the others, whether or not the name is present. A pseudo-header field is replaced.
    pub fn append<N: Name + ?Sized>(&mut self, name: &N, value: &[u8]) {
        let id = name.id().map(stored_as);
        match id.filter(|id| id.is_pseudo()) {
            Some(id) => self.set_pseudo(id, value),
            None => self.push_line(id, name.bytes(), value),
        }
    }

    /// Adds a field unless one of this name is present; says whether it did.
    pub fn insert<N: Name + ?Sized>(&mut self, name: &N, value: &[u8]) -> bool {
        let absent = !self.contains(name);
        if absent {
            self.append(name, value);
        }
        absent
    }

    /// Appends `,value` to the first field of the name, or adds the field: Envoy's `appendCopy` for
    /// `x-forwarded-for` and `via`.
    pub fn append_to_list<N: Name + ?Sized>(&mut self, name: &N, separator: &[u8], value: &[u8]) {
        let id = name.id().map(stored_as);
        let Some(index) = self.position(id, name.bytes()) else {
            return self.append(name, value);
        };
        let field = self.fields[index];
        let (old_start, old_length) = (field.value_offset as usize, field.value_length as usize);
        let (name_start, name_length) = (field.name_offset as usize, usize::from(field.name_length));
        let name_offset = self.block.len() as u32;
        self.block
            .extend_from_within(name_start..name_start + name_length);
        self.block.extend_from_slice(b": ");
        let value_offset = self.block.len() as u32;
        self.block.extend_from_within(old_start..old_start + old_length);
        if old_length > 0 {
            self.block.extend_from_slice(separator);
        }
        self.block.extend_from_slice(value);
        let value_length = self.block.len() as u32 - value_offset;
        self.block.extend_from_slice(b"\r\n");
        self.fields[index] = Field {
            name_offset,
            value_offset,
            value_length,
            is_canonical: true,
            ..field
        };
    }

    /// Removes every field of the name; says whether there was one.
    pub fn remove<N: Name + ?Sized>(&mut self, name: &N) -> bool {
        let id = name.id().map(stored_as);
        if let Some(id) = id {
            if id.is_pseudo() {
                return std::mem::replace(&mut self.pseudo[id as usize], ABSENT).offset != ABSENT.offset;
            }
            if self.first[id as usize] == 0 {
                return false;
            }
        }
        let mut found = false;
        for index in 0..self.fields.len() {
            if self.is_same(index, id, name.bytes()) {
                self.remove_at(index);
                found = true;
            }
        }
        found
    }

    /// Removes the fields for which `keep` says no. Pseudo-header fields stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        for index in 0..self.fields.len() {
            let field = self.fields[index];
            if field.id != REMOVED && !keep(self.name(&field), self.value(&field)) {
                self.remove_at(index);
            }
        }
    }

    /// Names and values in order, without pseudo-header fields.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .filter(|field| field.id != REMOVED)
            .map(|field| (self.name(field), self.value(field)))
    }

    /// The pseudo-header fields that are present.
    pub fn iter_pseudo(&self) -> impl Iterator<Item = (HeaderId, &[u8])> {
        const PSEUDO: [HeaderId; PSEUDO_COUNT] = [
            HeaderId::Method,
            HeaderId::Path,
            HeaderId::Authority,
            HeaderId::Scheme,
            HeaderId::Status,
            HeaderId::Protocol,
        ];
        PSEUDO
            .into_iter()
            .filter_map(|id| self.pseudo(id).map(|value| (id, value)))
    }

    /// Writes the fields as HTTP/1 lines, `name: value\r\n` each. Untouched neighbours are copied as one run.
    pub fn write_lines(&self, out: &mut Vec<u8>) {
        let mut run = 0..0u32;
        for field in &self.fields {
            if field.id == REMOVED {
                continue;
            }
            if field.is_canonical {
                if field.name_offset != run.end {
                    out.extend_from_slice(&self.block[run.start as usize..run.end as usize]);
                    run.start = field.name_offset;
                }
                run.end = field.line_end();
                continue;
            }
            out.extend_from_slice(&self.block[run.start as usize..run.end as usize]);
            run = 0..0;
            out.extend_from_slice(self.name(field));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value(field));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.block[run.start as usize..run.end as usize]);
    }

    #[inline]
    fn pseudo(&self, id: HeaderId) -> Option<&[u8]> {
        let span = self.pseudo[id as usize];
        if span.offset == ABSENT.offset {
            return None;
        }
        Some(&self.block[span.offset as usize..(span.offset + span.length) as usize])
    }

    fn set_pseudo(&mut self, id: HeaderId, value: &[u8]) {
        self.pseudo[id as usize] = Span {
            offset: self.block.len() as u32,
            length: value.len() as u32,
        };
        self.block.extend_from_slice(value);
    }

    #[inline]
    fn name(&self, field: &Field) -> &[u8] {
        let start = field.name_offset as usize;
        &self.block[start..start + usize::from(field.name_length)]
    }

    #[inline]
    fn value(&self, field: &Field) -> &[u8] {
        let start = field.value_offset as usize;
        &self.block[start..start + field.value_length as usize]
    }

    #[inline]
    fn is_named(&self, field: &Field, name: &[u8]) -> bool {
        field.id == UNKNOWN && usize::from(field.name_length) == name.len() && self.name(field) == name
    }

    fn is_same(&self, index: usize, id: Option<HeaderId>, name: &[u8]) -> bool {
        let field = &self.fields[index];
        match id {
            Some(id) => field.id == id as u8,
            None => self.is_named(field, name),
        }
    }

    fn position(&self, id: Option<HeaderId>, name: &[u8]) -> Option<usize> {
        match id {
            Some(id) => usize::from(self.first[id as usize]).checked_sub(1),
            None => self.fields.iter().position(|field| self.is_named(field, name)),
        }
    }

    fn push_line(&mut self, id: Option<HeaderId>, name: &[u8], value: &[u8]) {
        let name_offset = self.block.len() as u32;
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(b": ");
        let value_offset = self.block.len() as u32;
        self.block.extend_from_slice(value);
        self.block.extend_from_slice(b"\r\n");
        self.push_field(Field {
            name_offset,
            value_offset,
            value_length: value.len() as u32,
            name_length: name.len() as u16,
            id: id.map_or(UNKNOWN, |id| id as u8),
            is_canonical: true,
        });
    }

    fn push_field(&mut self, field: Field) {
        self.fields.push(field);
        self.live += 1;
        if let Some(first) = self.first.get_mut(usize::from(field.id))
            && *first == 0
        {
            *first = self.fields.len() as u16;
        }
    }

    fn replace(&mut self, index: usize, value: &[u8]) {
        let field = self.fields[index];
        let start = field.name_offset as usize;
        let name_offset = self.block.len() as u32;
        self.block
            .extend_from_within(start..start + usize::from(field.name_length));
        self.block.extend_from_slice(b": ");
        let value_offset = self.block.len() as u32;
        self.block.extend_from_slice(value);
        self.block.extend_from_slice(b"\r\n");
        self.fields[index] = Field {
            name_offset,
            value_offset,
            value_length: value.len() as u32,
            is_canonical: true,
            ..field
        };
    }

    fn remove_at(&mut self, index: usize) {
        let id = std::mem::replace(&mut self.fields[index].id, REMOVED);
        self.live -= 1;
        if usize::from(id) < ID_COUNT && usize::from(self.first[usize::from(id)]) == index + 1 {
            let next = self.fields[index + 1..].iter().position(|field| field.id == id);
            self.first[usize::from(id)] = next.map_or(0, |offset| (index + 1 + offset + 1) as u16);
        }
    }
}

/// What the head parser uses to fill a message: raw access to the block, kept inside the crate.
impl Headers {
    /// Copies received bytes to the end of the block and returns their offset.
    pub(crate) fn take_block(&mut self, bytes: &[u8]) -> usize {
        let offset = self.block.len();
        self.block.extend_from_slice(bytes);
        offset
    }

    pub(crate) fn block(&self) -> &[u8] {
        &self.block
    }

    pub(crate) fn block_mut(&mut self) -> &mut [u8] {
        &mut self.block
    }

    /// Records a field that lies in the block; the name is already in lower case.
    #[inline]
    pub(crate) fn push_parsed(
        &mut self,
        name_offset: usize,
        name_length: usize,
        value: std::ops::Range<usize>,
    ) -> Option<HeaderId> {
        let name_end = name_offset + name_length;
        let id = HeaderId::from_name(&self.block[name_offset..name_end]);
        // The line is the last thing in the block, with its CRLF.
        let is_canonical = value.start == name_end + 2
            && self.block[name_end + 1] == b' '
            && value.end + 2 == self.block.len();
        self.push_field(Field {
            name_offset: name_offset as u32,
            value_offset: value.start as u32,
            value_length: value.len() as u32,
            name_length: name_length as u16,
            id: id.map_or(UNKNOWN, |id| id as u8),
            is_canonical,
        });
        id
    }

    /// Records a pseudo-header field that lies in the block.
    pub(crate) fn push_pseudo(&mut self, id: HeaderId, value: std::ops::Range<usize>) {
        self.pseudo[id as usize] = Span {
            offset: value.start as u32,
            length: value.len() as u32,
        };
    }

    /// Turns the one `Host` field into `:authority`, unless the request line named the authority already.
    pub(crate) fn promote_host(&mut self) {
        let Some(index) = usize::from(self.first[HeaderId::Host as usize]).checked_sub(1) else {
            return;
        };
        let field = self.fields[index];
        self.remove_at(index);
        if self.pseudo[HeaderId::Authority as usize].offset == ABSENT.offset {
            self.pseudo[HeaderId::Authority as usize] = Span {
                offset: field.value_offset,
                length: field.value_length,
            };
        }
    }

    /// How many `Host` fields the parser found, before [`Self::promote_host`].
    pub(crate) fn host_count(&self) -> usize {
        match usize::from(self.first[HeaderId::Host as usize]).checked_sub(1) {
            None => 0,
            Some(start) => self.fields[start..]
                .iter()
                .filter(|field| field.id == HeaderId::Host as u8)
                .count(),
        }
    }
}

/// `host` is kept as `:authority`.
#[inline]
fn stored_as(id: HeaderId) -> HeaderId {
    if id as u8 == HeaderId::Host as u8 {
        HeaderId::Authority
    } else {
        id
    }
}
