# create a key of the project, for three requests per hour and the web pages of one shop
KEY=$(curl -s $URL/api-keys -H "Authorization: Bearer $SESSION" -H 'Content-Type: application/json' \
  -d '{"name": "web shop", "hourly_limit": 3, "allowed_origins": ["https://shop.example"]}' |
  sed -E 's/.*"token":"([^"]+)".*/\1/')

# 200, a page of the shop may read the response
curl -iw '\n' $URL/catalogue -H "api-key: $KEY" -H 'Origin: https://shop.example'

# 401, no key, and the wrong page
curl -iw '\n' $URL/catalogue
curl -iw '\n' $URL/catalogue -H "api-key: $KEY" -H 'Origin: https://other.example'

# 403, an order also requires the session of a user
curl -iw '\n' -X POST $URL/orders -H "api-key: $KEY"

# 201, key and session
curl -iw '\n' -X POST $URL/orders -H "api-key: $KEY" -H "Authorization: Bearer $SESSION"

# 429, the hourly limit is used up
curl -iw '\n' $URL/catalogue -H "api-key: $KEY"

# 401, ten wrong keys block this address for five minutes
for n in 1 2 3 4 5 6 7 8 9 10; do curl -si $URL/catalogue -H 'api-key: copied wrongly' | head -n 1; done

# 429, blocked, but a missing key is still a 401
curl -iw '\n' $URL/catalogue -H "api-key: $KEY"
curl -iw '\n' $URL/catalogue
