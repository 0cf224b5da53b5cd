//! Enums with labels: a variant is an index in the kernel, and its label is used in metrics, JSON and the docs.

/// Defines an enum with consecutive numbers from 0, whose variants have a label.
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
            /// All variants, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The number of variants.
            pub const COUNT: usize = Self::ALL.len();

            /// The labels of all variants, in the order of their numbers.
            pub const LABELS: &'static [&'static str] = &[$( $label, )+];

            /// The number of the variant, from 0.
            #[inline(always)]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The variant with this number, or `None`.
            pub const fn from_number(number: u8) -> Option<Self> {
                if (number as usize) < Self::COUNT { Some(Self::ALL[number as usize]) } else { None }
            }

            /// The label in metrics, JSON and the docs.
            pub const fn label(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )+
                }
            }

            /// The variant with this label, or `None`.
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

/// Serializes a [`label_enum!`] as its label and deserializes it. A separate macro, because a `cfg` inside `label_enum!`
/// would refer to a feature of the crate that uses it, not of this one.
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

/// Expands to nothing without the feature `serde`.
#[cfg(not(feature = "serde"))]
#[doc(hidden)]
#[macro_export]
macro_rules! serialize_label {
    ($name:ident) => {};
}

pub(crate) use label_enum;
