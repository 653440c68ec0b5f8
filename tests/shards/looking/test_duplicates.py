from shards.looking.duplicates import Held, Pictures, Shared, picture_hash


def hashes(text):
    return [picture_hash(letter.encode()) for letter in text]


def test_portraits_that_share_pictures_are_paired_with_the_first_that_has_them():
    a, b, c = (Held(key, key, "train") for key in "abc")
    with Pictures() as pictures:
        for held, text in ((a, "123"), (b, "4"), (c, "3215")):
            pictures.add(held, hashes(text))
        assert list(pictures.shared()) == [Shared(a, c, 3)]


def test_a_portrait_may_hold_a_picture_several_times():
    a = Held("a", "anna", "val")
    with Pictures() as pictures:
        pictures.add(a, hashes("1213"))
        assert list(pictures.shared()) == [Shared(a, a, 1)]


def test_different_pictures_share_nothing():
    with Pictures() as pictures:
        for number in range(50):
            pictures.add(Held(f"{number}", "anna", "train"), [picture_hash(bytes([number]))])
        assert list(pictures.shared()) == []
