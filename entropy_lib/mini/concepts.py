"""Which emoji the embedded model learns, and what they are called in a prompt.

The list is data, not logic: a concept belongs here when a person can name its 64 px picture at a glance and when the
picture differs from that of every other concept. Change it, rebuild `data/emoji/emoji.parquet` and train again.
"""

SUBCATEGORIES = (
    "animal-amphibian", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "animal-reptile",
    "plant-flower", "plant-other",
    "food-fruit", "food-vegetable", "food-prepared", "food-sweet", "food-asian", "drink", "dishware",
)  # fmt: skip

# Whole subcategories above; from the rest of the catalogue only the names below, by their Unicode name.
SINGLE_NAMES = (
    "trophy", "jack-o-lantern", "christmas tree", "balloon", "wrapped present", "direct hit", "game die", "teddy bear",
    "kite", "artist palette", "ball of yarn", "video game", "billiards", "bowling", "basketball and hoop",
    "american football", "volleyball", "soccer ball", "baseball", "softball", "boxing glove", "ice skate", "curling stone",
    "crown", "top hat", "eyeglasses", "necktie", "t-shirt", "jeans", "dress", "socks", "gloves", "high-heeled shoe",
    "athletic shoe", "ring", "gem stone", "graduation cap", "school satchel", "lipstick",
    "saxophone", "guitar", "trumpet", "violin", "drum with drumsticks", "accordion", "bell", "headphone",
    "hammer", "wrench", "axe", "shield", "magnet", "bomb", "gear", "screwdriver", "ladder", "pencil", "paintbrush",
    "key", "lock", "electric light bulb", "candle", "camera", "television", "mobile phone", "computer mouse", "battery",
    "envelope", "package", "books", "scroll", "money bag", "coin", "briefcase", "pushpin", "black scissors", "bucket",
    "chair", "door", "toilet", "microscope", "telescope", "test tube", "pill", "moyai",
    "rocket", "helicopter", "airplane", "flying saucer", "parachute", "racing car", "bus", "ambulance", "fire engine",
    "police car", "taxi", "automobile", "delivery truck", "tractor", "bicycle", "motor scooter", "steam locomotive",
    "sailboat", "ship", "anchor", "octagonal sign", "vertical traffic light",
    "house building", "european castle", "church", "volcano", "mount fuji", "tent", "hut", "fire", "droplet", "rainbow",
    "snowman without snow", "snowflake", "high voltage sign", "umbrella", "full moon symbol", "crescent moon", "sun with face",
    "white medium star", "cloud", "ringed planet", "earth globe americas", "hourglass", "alarm clock",
    "ghost", "alien monster", "robot face", "skull", "heavy black heart", "pile of poo", "extraterrestrial alien",
)  # fmt: skip

# Near-copies of another concept, scenes too fine for 64 px, or pictures on which the designs disagree about the object.
LEFT_OUT = (
    "rat", "mouse", "ox", "water buffalo", "ram", "black cat", "guide dog", "service dog", "poodle", "bactrian camel",
    "pig nose", "front-facing baby chick", "black bird", "bird", "wing", "goose", "chicken", "microbe", "worm",
    "cricket", "mosquito", "fly", "cockroach", "bug", "chipmunk", "otter", "badger", "beaver", "orangutan", "tiger",
    "leopard", "rabbit", "cat", "dog", "pig", "cow", "horse", "monkey", "dragon", "whale", "oyster", 
    "empty nest", "leaf fluttering in wind", "wilted flower", "rosette", "white flower", "shamrock", "fallen leaf", "blossom",
    "ear of rice", "herb",
    "clinking beer mugs", "clinking glasses", "pouring liquid", "glass of milk", "mate drink", "bowl with spoon",
    "shallow pan of food", "pot of food", "stuffed flatbread", "flatbread", "tamale", "fondue", "falafel", "butter",
    "canned food", "salt shaker", "cooked rice", "curry and rice", "roasted sweet potato", "fish cake with swirl design",
    "bento box", "takeout box", "moon cake", "fortune cookie", "steaming bowl", "custard", "shaved ice", "beans", "ginger root",
    "melon", "cut of meat", "fork and knife with plate", "amphora", 
    "bottle with popping cork", "sake bottle and cup", "beverage box", "cup with straw", "green salad", "oden",
)  # fmt: skip

# Unicode names that nobody would type, and what people say instead.
RENAMED = {
    "american football": "american football", "artist palette": "palette", "athletic shoe": "sneaker",
    "aubergine": "eggplant", "automobile": "car", "basketball and hoop": "basketball", "bowling": "bowling ball",
    "black scissors": "pair of scissors", "blowfish": "pufferfish", "computer mouse": "computer mouse",
    "cooking": "frying pan", "delivery truck": "truck", "direct hit": "target", "doughnut": "donut",
    "dromedary camel": "camel", "drum with drumsticks": "drum", "ear of maize": "corn cob",
    "earth globe americas": "globe", "electric light bulb": "light bulb", "european castle": "castle",
    "extraterrestrial alien": "alien", "fire engine": "fire truck", "full moon symbol": "full moon", "game die": "die",
    "gem stone": "diamond", "heavy black heart": "heart", "high voltage sign": "lightning bolt", "hocho": "kitchen knife",
    "house building": "house", "jack-o-lantern": "jack o lantern", "lady beetle": "ladybug", "meat on bone": "meat bone",
    "money bag": "money bag", "mount fuji": "mountain", "moyai": "stone statue", "octagonal sign": "stop sign",
    "package": "cardboard box", "pile of poo": "pile of poo", "red apple": "red apple", "ringed planet": "ringed planet",
    "sauropod": "long necked dinosaur", "school satchel": "backpack", "slice of pizza": "pizza",
    "snowman without snow": "snowman", "soft ice cream": "soft ice cream", "spiral shell": "shell",
    "spouting whale": "whale", "steam locomotive": "locomotive", "sun with face": "sun", "t-rex": "tyrannosaurus",
    "teacup without handle": "tea cup", "vertical traffic light": "traffic light", "white medium star": "star",
    "wrapped present": "gift box", "hot beverage": "coffee cup", "pea pod": "pea pod", "headphone": "pair of headphones",
    "flying saucer": "flying saucer", "alien monster": "space invader", "robot face": "robot",
    "fish": "fish", "poultry leg": "chicken leg", "tumbler glass": "whisky glass", "baby chick": "chick",
}  # fmt: skip


def prompt_name(unicode_name: str) -> str:
    """The words for an emoji in a prompt: "zebra face" → "zebra", "ear of maize" → "corn cob"."""
    return RENAMED.get(unicode_name, unicode_name.removesuffix(" face").replace("-", " "))
