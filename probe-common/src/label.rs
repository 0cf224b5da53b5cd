//! One enum, three uses: index in the kernel, label value in the metrics, word in the docs.

/// Defines a closed, dense enum whose variants carry the word that people and machines see.
#[macro_export]
macro_rules! label_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $label:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
        }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// How many variants there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The words of all variants, in the order of their numbers.
            pub const LABELS: &'static [&'static str] = &[$( $label, )+];

            /// The variant's number: dense, from 0.
            #[inline(always)]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The variant with this number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                if (number as usize) < Self::COUNT { Some(Self::ALL[number as usize]) } else { None }
            }

            /// The word used in metrics, JSON and the docs.
            pub const fn label(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )+
                }
            }

            /// The variant that this is the word of, if there is one.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.label() == label)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.label())
            }
        }

        $crate::serialize_label!($name);
    };
}

/// Serializes a [`label_enum!`] as its word, and back. A macro of its own, because a `cfg` inside `label_enum!`
/// would ask for a feature of the crate that uses it, not of this one.
#[cfg(feature = "serde")]
#[doc(hidden)]
#[macro_export]
macro_rules! serialize_label {
    ($name:ident) => {
        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::from_text::deserialize(
                    deserializer,
                    concat!("a ", stringify!($name)),
                    Self::from_label,
                )
            }
        }
    };
}

/// Without serde there is nothing to serialize.
#[cfg(not(feature = "serde"))]
#[doc(hidden)]
#[macro_export]
macro_rules! serialize_label {
    ($name:ident) => {};
}

pub(crate) use label_enum;
