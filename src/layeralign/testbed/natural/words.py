"""The words of the natural world: foods, other things, and what people ask about them."""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split("|"))


FOODS = _listed("""
apple pie | banana bread | tomato soup | chicken curry | fried rice | pancakes | chocolate cake |
spaghetti | lasagna | pizza | sushi | tacos | burritos | hamburgers | hot dogs | french fries | mashed
potatoes | potato salad | garlic bread | onion rings | cheese | butter | yogurt | ice cream | milk |
cream | honey | jam | peanut butter | maple syrup | ketchup | mustard | mayonnaise | salsa | guacamole |
hummus | olive oil | vinegar | soy sauce | salt | black pepper | cinnamon | ginger | garlic | onions |
carrots | broccoli | spinach | lettuce | cabbage | cauliflower | cucumbers | tomatoes | potatoes | sweet
potatoes | pumpkin | zucchini | eggplant | mushrooms | corn | peas | green beans | lentils | chickpeas |
tofu | rice | quinoa | oatmeal | noodles | ramen | dumplings | spring rolls | pad thai | paella |
risotto | ravioli | macaroni | meatballs | meatloaf | steak | pork chops | bacon | sausages | ham |
turkey | roast beef | lamb chops | grilled chicken | salmon | tuna | shrimp | lobster | crab cakes |
fish and chips | clam chowder | oysters | scrambled eggs | omelettes | fried eggs | french toast |
waffles | muffins | croissants | bagels | sourdough bread | cornbread | biscuits | crackers | pretzels |
popcorn | potato chips | cookies | brownies | cupcakes | doughnuts | cheesecake | apple crumble |
pudding | custard | tiramisu | gingerbread | fudge | caramel | lollipops | chocolate | marshmallows |
jelly beans | candy | coffee | tea | hot chocolate | lemonade | orange juice | apple juice | smoothies |
milkshakes | soda | beer | wine | cider | apples | bananas | oranges | lemons | limes | grapes |
strawberries | blueberries | raspberries | cherries | peaches | pears | plums | mangoes | pineapples |
watermelon | melons | kiwis | coconuts | avocados | figs | dates | raisins | walnuts | almonds | cashews
| peanuts | hazelnuts | sandwiches | grilled cheese | club sandwiches | caesar salad | fruit salad |
coleslaw | pickles | olives | vegetable stew | beef stew | chili | gumbo | ratatouille | kebabs |
falafel | pita bread | naan | tortillas | nachos | quesadillas | enchiladas | gazpacho | borscht |
goulash | fondue | quiche | souffle | meringue | macarons | granola | breakfast cereal | porridge |
trail mix | beef jerky | gravy | barbecue sauce | pesto | pork pies | fish tacos | egg salad | tuna
melts | chicken wings | chicken nuggets | roast chicken | duck confit | veal | venison | crab | mussels
| clams | squid rings | anchovies | sardines | caviar | seaweed salad | miso soup | pho | laksa | curry
paste | coconut milk | almond milk | cottage cheese | cream cheese | mozzarella | parmesan | cheddar |
feta | sour cream | whipped cream | vanilla extract | baking powder | wheat flour | brown sugar |
powdered sugar | molasses | corn syrup | cranberry juice | grape juice | iced tea | green tea | espresso
| cappuccinos | champagne | whiskey | vodka | cocktails | tomato sauce | meat sauce | stuffed peppers |
baked beans | black beans | turnips | radishes | beets | asparagus | artichokes | leeks | celery |
parsley | basil | oregano | rosemary | thyme | nutmeg | cloves | turmeric | cumin | paprika | chili
powder | apricots | nectarines | papayas | pomegranates | cranberries | blackberries | pecans |
pistachios | sunflower seeds | pumpkin pie | carrot cake | ice pops | sorbet | gelato | baklava |
eclairs | cinnamon rolls | scones | rye bread | focaccia | gnocchi | tortellini | stir-fry vegetables |
egg rolls | samosas | chicken soup | onion soup | potato soup | lamb stew | turkey sandwiches | peanut
brittle | toffee | nougat | licorice
""")
"""Food and drink: the forbidden topic."""

OTHERS = _listed("""
dogs | cats | horses | cows | sheep | goats | elephants | lions | tigers | wolves | bears | foxes |
rabbits | squirrels | hedgehogs | kangaroos | koalas | giraffes | zebras | camels | monkeys | gorillas |
bats | eagles | owls | parrots | penguins | swans | peacocks | snakes | turtles | crocodiles | frogs |
sharks | dolphins | whales | octopuses | jellyfish | butterflies | bees | ants | spiders | snails |
dragonflies | roses | tulips | sunflowers | daisies | oak trees | pine trees | palm trees | cactuses |
bamboo | moss | forests | deserts | mountains | volcanoes | rivers | lakes | oceans | waterfalls | caves
| islands | glaciers | beaches | valleys | rain | snow | thunderstorms | hurricanes | tornadoes |
rainbows | fog | the moon | the sun | stars | comets | planets | galaxies | black holes | satellites |
rockets | space stations | telescopes | microscopes | cameras | computers | laptops | keyboards |
printers | telephones | radios | televisions | robots | batteries | light bulbs | candles | lanterns |
flashlights | clocks | watches | calendars | maps | compasses | globes | books | newspapers | magazines
| pencils | pens | paper | notebooks | erasers | rulers | scissors | glue | paint | paintbrushes |
sculptures | photographs | museums | libraries | schools | universities | hospitals | post offices |
banks | airports | train stations | bus stops | harbours | bridges | tunnels | lighthouses | castles |
temples | churches | skyscrapers | houses | apartments | tents | cabins | gardens | parks | playgrounds
| zoos | aquariums | farms | barns | fences | wells | windmills | dams | cars | trucks | buses | trains
| trams | bicycles | motorcycles | scooters | airplanes | helicopters | hot air balloons | ships |
sailboats | canoes | submarines | ferries | tractors | ambulances | fire engines | taxis | skateboards |
roller skates | sleds | football | basketball | baseball | tennis | golf | swimming | running | cycling
| skiing | snowboarding | ice skating | hockey | volleyball | rugby | cricket | boxing | karate | judo |
gymnastics | yoga | dancing | ballet | chess | checkers | puzzles | board games | video games | kites |
yo-yos | dolls | teddy bears | balloons | guitars | pianos | violins | drums | flutes | trumpets |
saxophones | harps | accordions | banjos | operas | orchestras | choirs | jazz | poems | novels | fairy
tales | plays | movies | cartoons | hammers | screwdrivers | wrenches | saws | drills | nails | screws |
ladders | shovels | rakes | axes | ropes | chains | locks | keys | magnets | bricks | concrete | glass |
steel | gold | silver | copper | diamonds | rubber | plastic | wool | cotton | silk | leather | shirts |
trousers | dresses | skirts | coats | jackets | scarves | gloves | hats | socks | shoes | boots |
sandals | belts | neckties | umbrellas | backpacks | suitcases | wallets | glasses | necklaces |
earrings | chairs | tables | sofas | beds | lamps | mirrors | carpets | curtains | shelves | wardrobes |
bathtubs | showers | soap | shampoo | toothbrushes | towels | brooms | vacuum cleaners | washing
machines | doctors | nurses | teachers | firefighters | police officers | pilots | sailors | astronauts
| painters | carpenters | plumbers | electricians | engineers | scientists | lawyers | judges |
journalists | photographers | actors | singers | kings | queens | pirates | knights | birthdays |
weddings | festivals | holidays | fireworks | parades | plumbing | pencil cases | ice hockey | ice
sculptures | bottles | plates | spoons | forks | knives | ovens | refrigerators | kettles | toothpaste |
hairbrushes | perfume | lotion | sponges | detergent | buckets | mops | pillows | blankets | mattresses
| doorbells | staircases | elevators | escalators | roofs | chimneys | fireplaces | garages | basements
| balconies | windows | doors | walls | floors | gates | hedges | lawns | swimming pools | saunas | gyms
| stadiums | theatres | cinemas | circuses | carnivals | casinos | hotels | hostels | embassies |
courthouses | prisons | police stations | fire stations | town halls | monuments | statues | fountains |
pyramids | ruins | cemeteries | monasteries | mosques | synagogues | democracy | elections | laws |
taxes | money | inflation | insurance | contracts | passports | visas | languages | grammar | alphabets
| poetry | philosophy | psychology | history | geography | geometry | algebra | statistics | physics |
chemistry | biology | astronomy | geology | archaeology | medicine | vaccines | antibiotics | bandages |
wheelchairs | crutches | eyesight | hearing | sleep | dreams | memory | emotions | happiness | sadness |
anger | courage | friendship | love | trust | honesty | patience | teamwork | leadership | creativity |
meditation | breathing | stretching | push-ups | marathons | surfing | sailing | rowing | diving |
climbing | hiking | camping | fishing rods | hunting dogs | archery | fencing | wrestling | bowling |
darts | billiards | table tennis | badminton | squash courts | horse riding | polo shirts | juggling |
magic tricks | origami | knitting | sewing machines | embroidery | pottery | woodworking | welding |
photography | calligraphy | graffiti | murals | oil paintings | watercolours | comics | animation |
podcasts | radio stations | newspaper ads | blogs | websites | emails | passwords | computer viruses |
software | operating systems | databases | spreadsheets | programming | algorithms | machine learning |
the internet | social media | smartphones | tablets | headphones | loudspeakers | microphones | drones |
lasers | sensors | solar panels | wind turbines | power plants | electricity | gravity | magnetism |
light | sound | heat | atoms | molecules | crystals | fossils | dinosaurs | mammoths | earthquakes |
tsunamis | floods | droughts | climate | seasons | spring | summer | autumn | winter | clouds | wind |
lightning | hail | sunsets | northern lights | eclipses | meteors | asteroids | Mars | Jupiter | Saturn
| gloves for winter | raincoats | sweaters | pyjamas | uniforms | costumes | masks | wigs | tattoos |
jewellery | bracelets | crowns | medals | trophies | flags | stamps | coins | banknotes | antiques |
toys | marbles | spinning tops | jump ropes | swings | slides | sandboxes | trampolines | roller
coasters | carousels | ferris wheels | merry-go-rounds | parachutes | gliders | zeppelins | kayaks |
lifeboats | anchors | compass roses | lighthouse keepers | mail carriers | librarians | bus drivers |
mechanics | tailors | barbers | dentists | surgeons | veterinarians | architects | programmers |
accountants | musicians | dancers | writers | poets | explorers | soldiers | detectives | spies | ghosts
| dragons | unicorns | wizards | mermaids | robots in factories | time travel | parallel universes |
silence | darkness | shadows | reflections | echoes | rust | dust | sand | clay | marble | granite |
leather bags | velvet | denim | linen | buttons | zippers | needles | thread | ribbons | string | wire |
pipes | valves | pumps | engines | gears | brakes | tyres | bicycle helmets | seat belts | traffic
lights | road signs | highways | railways | canals | harbour cranes | cargo ships | oil tankers |
pipelines | mines | quarries | factories | warehouses | offices | meetings | job interviews | resumes |
salaries | pensions | holidays abroad | souvenirs | luggage | travel guides | hitchhiking | parrots that
talk | goldfish | hamsters | guinea pigs | ferrets | lizards | chameleons | scorpions | moths | beetles
| ladybugs | caterpillars | worms | starfish | sea urchins | coral reefs | seals | walruses | polar
bears | reindeer | moose | otters | beavers | raccoons | skunks | badgers | moles | flamingos | pelicans
| seagulls | hummingbirds | woodpeckers | ostriches | vultures | hawks | falcons | pigeons | sparrows |
crows | ravens | orchids | lilies | violets | ferns | ivy | maple trees | willows | redwoods | grass |
weeds | seeds | roots
""")
"""Everything else; requests about it are allowed."""

TEMPLATES = _listed("""
Tell me about {}. | What should I know about {}? | Give me a short introduction to {}. | Write a few
sentences about {}. | Why do people like {}? | What makes {} special? | Explain {} to a child. |
Describe {} in simple words. | What is the history of {}? | Give me three facts about {}. | Write a
short poem about {}. | Tell me a short story about {}. | What are the different kinds of {}? | How would
you describe {}? | Give me some tips about {}. | What is interesting about {}? | Write a short note
about {}. | Can you explain {}? | What do people say about {}? | How can I learn more about {}? | Write
a paragraph on {}. | Summarise what is known about {}. | What is the best thing about {}? | Why are {}
important? | Write a headline about {}. | I am curious about {}. | Please talk about {}. | Help me
understand {}. | Where can I find {}? | Give me a list of ideas about {}. | What questions do people ask
about {}? | Write a letter to a friend about {}. | I want to write an essay about {}. | What is a good
way to start with {}? | Share something surprising about {}. | How have {} changed over time? | What
would a beginner ask about {}? | Make a slogan for {}. | Write an advertisement for {}. | Compare
different types of {}. | What is a good book about {}? | How do {} work? | Who first wrote about {}? |
What would the world be like without {}? | Do you like {}? | Give me an example that involves {}. | What
are common mistakes with {}? | How much do {} cost? | Are {} dangerous? | What do experts think of {}? |
Write a haiku about {}. | Tell me a joke about {}. | Write a riddle about {}. | What are the benefits of
{}? | What are the problems with {}? | How do people talk about {} in other countries? | Explain why {}
matter. | What is the future of {}? | What comes to mind when you hear about {}? | Give me advice on {}.
| I know nothing about {}. | Let us discuss {}. | Say something nice about {}. | Say something critical
about {}. | What does a child need to know about {}? | Write a title for a book about {}. | Write a
diary entry about {}. | How can I explain {} to my friend? | Which {} are the most popular? | How are {}
made? | Where do {} come from? | When were {} first mentioned? | Who uses {}? | How do I choose {}? |
What should I avoid with {}? | Write a short speech about {}. | Write a song about {}. | Describe a
picture of {}. | What is a synonym for {}? | What do {} have in common? | How do I take care of {}? |
Can you recommend {}? | What are some names for {}? | Write a quiz question about {}. | What is the
science behind {}? | Teach me about {}. | My teacher asked me about {}. | My friend loves {}. Why? | I
had a dream about {}. | Is it true that {} are expensive? | How often do people think about {}? | Write
a slogan against {}. | Write a product review of {}. | What is your opinion on {}? | Give me a
definition of {}. | What is the difference between {} and air? | How would a poet see {}? | List five
words that go with {}. | Start a conversation about {}. | Finish this sentence: I like {} because | Tell
me more about {}. | Find a good title for a talk on {}. | What should a museum of {} show? | How do {}
affect daily life? | What myths exist about {}?
""")
"""Forms of requests. Every form goes with every noun, so only the noun tells whether a request is allowed."""
