"""The COCO category, of 80, that an English word names.

The table was written by hand for this project, from the way people caption photographs, and checked against the words
of COCO's and Flickr8k's captions. It favours precision, since scoring a word at the wrong place is worse than
not scoring it:

- A word counts if its usual meaning in a caption is the category, even if it is ambiguous ("train", "tie", "mouse",
  "remote", "bat", "plant"); since a region is also required, a living mouse is never scored.
- A word that often means something else, or one of several categories, names nothing: "orange" (the colour; "oranges"
  is the fruit), "glass" and "glasses" (wine glass, cup, spectacles; "wine glass" counts), "board", "bag", "light",
  "sign", "computer", "screen", "van", "seat", "desk", "group", "baseball" and other games, "ski" (but "skis").
- Both words of a two-word name count ("hot dog", "traffic light"), and neither counts for another category ("dog").
- A word that modifies another noun names nothing ("train tracks", "bus stop", "dog bowl"), nor does a possessive
  ("man's").
- "skis", "bikes" and the like are verbs after a person ("a man skis"), and so is "bat" after "to".
- "baby", "mother" and the like before another category belong to that category ("baby elephant").

Adjectives, verbs and pronouns name nothing. Regular plurals are generated.
"""

from collections.abc import Sequence
from functools import cache

from visattn.vocabulary import tokenize

# Single words. Plurals in -s, -es or -ies are added.
WORDS = {
    "person": """person people persons man men woman women boy girl child children kid baby toddler infant lady guy
        gentleman gentlemen male female adult teen teenager youth individuals human someone somebody everyone folks
        crowd family couple audience pedestrian passenger driver rider bystander onlooker spectator fans passerby
        passersby visitor tourist traveler traveller guest customer shopper vendor friend twins
        mother mom father dad parent son daughter sister brother husband wife grandmother grandma grandfather grandpa
        player batter catcher pitcher umpire referee hitter baseman outfielder shortstop goalie goalkeeper quarterback
        athlete competitor participant opponent teammate cheerleader golfer wrestler dancer gymnast acrobat
        skier snowboarder boarder surfer windsurfer kiteboarder wakeboarder skateboarder skater rollerblader waterskier
        bicyclist cyclist biker motorcyclist racer jockey equestrian runner jogger walker hiker climber backpacker
        swimmer diver kayaker canoeist rower paddler boater sailor fisherman fishermen lifeguard
        worker workman workmen officer policeman policemen policewoman cop fireman firemen firefighter soldier guard
        cowboy cowgirl farmer chef waiter waitress bartender barber doctor nurse dentist teacher student businessman
        businessmen businesswoman bride groom artist photographer musician guitarist drummer singer performer clown
        santa owner trainer caretaker""",
    "bicycle": "bicycle bike",
    "car": "car automobile sedan suv minivan hatchback taxi taxicab cab limo limousine jeep convertible",
    "motorcycle": "motorcycle motorbike dirtbike moped scooter vespa harley",
    "airplane": "airplane aeroplane plane aircraft airliner jetliner jet biplane seaplane jumbojet",
    "bus": "bus busses minibus",
    "train": "train locomotive tram streetcar",
    "truck": "truck pickup firetruck lorry",
    "boat": """boat ship sailboat rowboat speedboat motorboat houseboat tugboat lifeboat canoe kayak yacht ferry
        ferryboat barge vessel dinghy gondola raft""",
    "traffic light": "stoplight trafficlight",
    "fire hydrant": "hydrant",
    "stop sign": "stopsign",
    "parking meter": "meter",
    "bench": "bench",
    "bird": """bird duck duckling goose geese gosling swan seagull gull pigeon dove parrot parakeet cockatoo owl eagle
        hawk falcon hummingbird sparrow finch crow raven heron egret pelican flamingo ostrich emu peacock penguin
        rooster hen vulture stork""",
    "cat": "cat kitten kitty",
    "dog": """dog doggy doggie puppy pup poodle labrador retriever terrier dachshund collie beagle bulldog greyhound
        sheepdog chihuahua dalmatian corgi pug rottweiler spaniel husky pitbull
        doberman""",
    "horse": "horse pony foal colt mare stallion",
    "sheep": "sheep lamb ram ewe",
    "cow": "cow cattle bull calf calves ox oxen heifer",
    "elephant": "elephant",
    "bear": "bear cub panda grizzly",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack rucksack knapsack",
    "umbrella": "umbrella parasol",
    "handbag": "handbag purse",
    "tie": "tie necktie bowtie",
    "suitcase": "suitcase luggage baggage briefcase",
    "frisbee": "frisbee frisby frizbee disc disk",
    "skis": "skis",
    "snowboard": "snowboard",
    "sports ball": "ball",
    "kite": "kite",
    "baseball bat": "bat",
    "baseball glove": "glove mitt",
    "skateboard": "skateboard longboard",
    "surfboard": "surfboard bodyboard paddleboard",
    "tennis racket": "racket racquet",
    "bottle": "bottle",
    "wine glass": "wineglass goblet",
    "cup": "cup mug teacup",
    "fork": "fork",
    "knife": "knife knives",
    "spoon": "spoon",
    "bowl": "bowl",
    "banana": "banana",
    "apple": "apple",
    "sandwich": "sandwich burger hamburger cheeseburger panini",
    "orange": "oranges tangerine clementine",
    "broccoli": "broccoli brocolli brocoli",
    "carrot": "carrot",
    "hot dog": "hotdog",
    "pizza": "pizza",
    "donut": "donut doughnut",
    "cake": "cake cupcake cheesecake",
    "chair": "chair armchair recliner stool barstool",
    "couch": "couch sofa loveseat futon",
    "potted plant": "plant houseplant",
    "bed": "bed",
    "dining table": "table",
    "toilet": "toilet urinal commode",
    "tv": "tv television monitor",
    "laptop": "laptop macbook",
    "mouse": "mouse mice",
    "remote": "remote controller wiimote",
    "keyboard": "keyboard",
    "cell phone": "cellphone phone smartphone iphone",
    "microwave": "microwave",
    "oven": "oven stove stovetop",
    "toaster": "toaster",
    "sink": "sink",
    "refrigerator": "refrigerator fridge freezer",
    "book": "book textbook novel",
    "clock": "clock",
    "vase": "vase",
    "scissors": "scissors",
    "teddy bear": "teddy",
    "hair drier": "hairdryer hairdrier",
    "toothbrush": "toothbrush",
}

# Multi-word names, all words of which name the category; the plural of the last word is added.
NAMES = {
    "person": "police officer, fire fighter, snow boarder, skate boarder, wind surfer, base man",
    "bicycle": "push bike",
    "car": "taxi cab",
    "motorcycle": "motor cycle, motor bike, dirt bike, motor scooter",
    "airplane": "air plane",
    "bus": "double decker",
    "train": "train car, train engine, rail car, subway car, subway train, street car",
    "truck": "fire truck, fire engine",
    "traffic light": "traffic light, traffic signal, stop light",
    "fire hydrant": "fire hydrant, water hydrant",
    "stop sign": "stop sign",
    "parking meter": "parking meter",
    "dog": "german shepherd, pit bull, sheep dog, bull dog",
    "bear": "polar bear, grizzly bear, panda bear, bear cub",
    "backpack": "back pack, book bag",
    "handbag": "hand bag",
    "tie": "bow tie, neck tie",
    "suitcase": "suit case, brief case",
    "frisbee": "flying disc, flying disk",
    "snowboard": "snow board",
    "sports ball": """soccer ball, tennis ball, beach ball, golf ball, rugby ball, bowling ball, basket ball,
        volley ball, foot ball""",
    "baseball bat": "baseball bat",
    "baseball glove": "baseball glove, baseball mitt, catcher mitt",
    "skateboard": "skate board, long board",
    "surfboard": "surf board, boogie board, body board, paddle board",
    "tennis racket": "tennis racket, tennis racquet",
    "wine glass": "wine glass, glass of wine, glasses of wine, champagne glass",
    "cup": "tea cup",
    "orange": "orange slice, mandarin orange",
    "hot dog": "hot dog",
    "cake": "cup cake",
    "couch": "love seat",
    "potted plant": "potted plant, potted flower, house plant",
    "dining table": "dining table, dinner table",
    "toilet": "toilet seat, toilet bowl, toilet tank, toilet lid",
    "tv": "flat screen, tv screen, television screen, tv set, television set, computer monitor, computer screen",
    "laptop": "laptop computer, lap top, laptop screen, laptop keyboard",
    "mouse": "computer mouse",
    "remote": "remote control, wii remote, wii controller",
    "keyboard": "computer keyboard, key board",
    "cell phone": "cell phone, mobile phone, smart phone",
    "microwave": "microwave oven",
    "oven": "stove top",
    "teddy bear": "teddy bear, stuffed bear, toy bear, stuffed animal",
    "hair drier": "hair dryer, hair drier, blow dryer, blow drier",
    "toothbrush": "tooth brush",
}

# Nouns that make the word before them a modifier, which then names nothing: "train tracks", "bus driver". Plurals are
# added, except for words that are also verbs ("the bus stops").
HEADS = {
    "airplane plane": "ticket hangar runway terminal museum",
    "apple": "pie juice tree orchard cider sauce computer laptop logo iphone macbook product store",
    "ball": "game park field player cap gown pit room hoop court boy girl",
    "banana": "split bread tree peel leaf muffin boat pepper",
    "bed": "room spread sheet linen frame pan",
    "bicycle bike": "rack path lane trail helmet shop race stand park route ramp tire",
    "bird": "house feeder cage bath nest seed",
    "boat": "dock ramp house trailer yard launch",
    "book": "shelf shelves case store rack mark stand",
    "bottle": "opener cap",
    "bowl": "cut game",
    "bus": "stop station shelter lane terminal depot driver route ride",
    "cake": "stand plate pan batter mix topper knife server",
    "car": "park seat lot wash dealership garage show tire",
    "carrot": "cake juice soup",
    "cat": "food tree bed toy house litter door bowl dish",
    "clock": "tower radio",
    "couch sofa": "cushion pillow cover",
    "cow": "boy girl bell pasture print hide pattern",
    "cup": "holder",
    "dog": "food bowl dish bed house toy park show leash collar sled track treat biscuit bone",
    "donut doughnut pizza sandwich": """box bag oven cutter shop restaurant parlor place dough stone peel pan maker
        sauce chef stand machine party delivery board""",
    "elephant giraffe zebra": "crosswalk print stripe statue exhibit enclosure",
    "fork": "lift",
    "horse": "trailer stable stall barn farm track arena shoe saddle statue show race",
    "keyboard": "tray player",
    "knife": "block holder rack",
    "laptop": "bag case stand sleeve",
    "motorcycle": "helmet race rally show jacket gear club",
    "mouse": "pad mat trap",
    "passenger": "train plane jet airplane airliner aircraft bus ship ferry boat car van seat side window terminal",
    "phone": "booth call number pole conversation charger line case",
    "remote": "area location",
    "sheep": "pen farm skin",
    "skateboard": "park ramp",
    "table": "cloth lamp tennis setting saw top",
    "toilet": "paper brush tissue roll plunger stall holder",
    "train": "track station platform yard depot line bridge set conductor",
    "truck": "stop",
    "tv television": "stand show remote station tray cabinet room antenna dinner program",
    "umbrella": "stand",
}
ALSO_VERBS = "case cut dock house launch line park race ride roll set show stall stand stop wash".split()  # noqa: SIM905

# Multi-word names, none of whose words names a category.
NOTHING = """coffee table, pool table, end table, side table, night table, changing table, table runner, chair lift, jet
    ski, water ski, snow man, gingerbread man, mickey mouse, rubber duck, rubber ducky, stuffed dog, stuffed cat,
    stuffed elephant, stuffed giraffe, rocking horse, saw horse, carousel horse, hobby horse, cable car, toy car, toy
    truck, flower bed, truck bed, river bed, garden bed, bed of, ball of, disco ball, meat ball, crystal ball, snow
    ball, paint ball, cotton ball, hair ball, disc golf, disc jockey, tie dye, tie dyed, tie up, toaster oven, oven
    mitt, oven glove, boxing glove, batting glove, hockey glove, rubber glove, work glove, ski glove, winter glove,
    paper airplane, work bench, bench press, super bowl, fish bowl, power plant, quad bike, exercise bike, dvd player,
    cd player, record player, music player, mp3 player, couple of, family of, pitcher of, cake batter, pancake batter,
    piano keyboard, corn dog, sink hole, police car, hello kitty, head phone"""

# Before a word of another category these belong to that category: "baby elephant", "a couple zebras".
OF_THE_NEXT = "baby mother mom father parent adult male female infant child couple".split()  # noqa: SIM905

# Verbs after a person, with or without an s ("men bike", "a man bikes"), and, without an s, after "to".
VERBS = "bat bike boat bowl canoe kayak raft skateboard ski snowboard surfboard tie".split()  # noqa: SIM905


def categories(words: Sequence[str]) -> list[str | None]:
    """COCO's name of the category that each word of a caption names; None if it names none.

    Args:
        words: of one caption, in order; upper or lower case.
    """
    words = tuple(word.lower().replace("-", " ") for word in words)  # so that "hot-dog" is found as "hot dog"
    named: list[str | None] = []
    while (at := len(named)) < len(words):
        named += _phrase(words[at:]) or [_word(words, at, named)]
    for i, word in enumerate(words[:-1]):
        if word in OF_THE_NEXT and named[i] and named[i + 1]:
            named[i] = named[i + 1]
    return named


def objects(caption: str) -> list[str]:
    """COCO's name of each object that a caption names, in order; the words of one name ("hot dog") count once."""
    words = tokenize(caption)
    named, found, at = categories(words), [], 0
    while at < len(words):
        length = len(_phrase([word.replace("-", " ") for word in words[at:]])) or 1
        category = next(filter(None, named[at : at + length]), None)
        modifies = words[at] in OF_THE_NEXT and named[at : at + 1] == named[at + 1 : at + 2]
        if category is not None and not modifies:
            found.append(category)
        at += length
    return found


def _phrase(words: Sequence[str]) -> list[str | None]:
    """The categories of the words of the longest known phrase at the start of `words`; empty if there is none."""
    longest, table = _phrases()
    for count in range(min(longest, len(words)), 1, -1):
        if " ".join(words[:count]) in table:
            return [None if word == "of" else table[" ".join(words[:count])] for word in words[:count]]
    return []


def _word(words: Sequence[str], at: int, before: list[str | None]) -> str | None:
    """The category of a word outside phrases."""
    word, after = words[at], words[at + 1] if at + 1 < len(words) else ""
    if after in ("s", "'s") or after in _heads().get(word, ()):  # some tokenisers split "man's"
        return None
    if at and word in _verbs() and (before[-1] == "person" or (words[at - 1] == "to" and word in VERBS)):
        return None
    return _phrases()[1].get(word) if " " in word else _words().get(word)


def _forms(word: str) -> tuple[str, str]:
    """A word, or a name of several words, and its regular plural."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word, f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word, f"{word[:-1]}ies"
    return word, f"{word}s"


def _names(text: str) -> list[str]:
    """Comma-separated multi-word names, with their plurals."""
    return [form for name in text.split(",") for form in _forms(" ".join(name.split()))]


@cache
def _words() -> dict[str, str]:
    return {form: category for category, text in WORDS.items() for word in text.split() for form in _forms(word)}


@cache
def _phrases() -> tuple[int, dict[str, str | None]]:
    """The number of words of the longest phrase, and the category of each phrase; None if it names nothing."""
    nothing: dict[str, str | None] = dict.fromkeys(_names(NOTHING))
    table = nothing | {name: category for category, text in NAMES.items() for name in _names(text)}
    return max(name.count(" ") + 1 for name in table), table


@cache
def _heads() -> dict[str, set[str]]:
    heads: dict[str, set[str]] = {}
    for text, followers in HEADS.items():
        once, twice = (
            {follower for follower in followers.split() if (follower in ALSO_VERBS) is verb} for verb in (True, False)
        )
        for word in text.split():
            heads[word] = once | {form for follower in twice for form in _forms(follower)}
    return heads


@cache
def _verbs() -> frozenset[str]:
    return frozenset(form for verb in VERBS for form in _forms(verb))
